"""One module for each asset, named like the asset."""
