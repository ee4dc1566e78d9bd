"""What follows a death: whose fault it was, what is charged and given back, what is left to clean up."""
