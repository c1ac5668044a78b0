"""What the paper says, and what its released code found."""
