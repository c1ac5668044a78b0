"""What things cost: seconds and memory."""
