"""The worker processes of one router: how many, what they share, and how they ask each other."""
