"""Names of modules of `ionbeam_client.archfx.api`."""
