"""Episodes to look at: frames with the tokens of each action beside them."""
