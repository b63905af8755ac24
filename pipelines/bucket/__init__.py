"""What is published in a store, and who else is there: manifest as read, catalogue, claim, leases."""
