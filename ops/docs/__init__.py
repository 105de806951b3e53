"""`python -m ops.docs`: writes the references of settings from the code that reads them."""
