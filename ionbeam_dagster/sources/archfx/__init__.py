"""The source `archfx`: its block in the YAML (config.py), and the streams that it pulls (source.py)."""
