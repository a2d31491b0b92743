"""What can be trained: network, batches, loss and checkpoint of each family."""
