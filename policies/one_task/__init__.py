"""What networks of one task share: a checkpoint's folder, and the policy around it."""
