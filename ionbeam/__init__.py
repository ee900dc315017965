"""The name by which the platform is started as a module. Nothing belongs here but that: the code is ionbeam_dagster."""
