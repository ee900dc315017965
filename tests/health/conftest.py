"""What tests of health share: an installation to be broken, and a small disk."""

from installations import a_day_at_work, installation, small_disk  # noqa: F401
