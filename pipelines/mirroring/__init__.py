"""One store made equal to another, epoch by epoch."""
