"""From stored pixels to network input, and the random changes of training."""
