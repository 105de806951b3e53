"""Launchers start and stop slots. `contract` says what each must do; there is one module per engine."""
