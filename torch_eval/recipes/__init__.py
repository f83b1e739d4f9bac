"""What an attack is: recipes, their parts, and the resources that they use."""
