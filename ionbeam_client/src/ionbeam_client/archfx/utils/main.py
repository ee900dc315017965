"""The frame of a script: arguments, logging, log-in, the work, log-out.

Belongs here: what every script repeats. Does not belong here: requests (`api.connection`).
"""

from __future__ import annotations

import argparse
import configparser
import getpass
import logging
import os
import re
import sys

from ionbeam_client.archfx.api.connection import DEFAULT_TOKEN_TYPE, Api
from ionbeam_client.archfx.api.exceptions import HttpClientError

_log = logging.getLogger(__name__)


class BaseMain:
    """A script is a class below this one with an `after_login()`, and any other method that it does otherwise.

    `main()` goes: `get_domain`, `before_login`, `login`; where that succeeds, `after_login`, `logout`, `after_logout`.
    `self.args` are the arguments, `self.api` the connection.

    A file `.ini` in the working folder may hold tokens by customer, so that no password is asked for: a section such as
    `[c-arch]` with `token`, or with `jwt_access` and `jwt_refresh`.
    """

    parser: argparse.ArgumentParser
    args: argparse.Namespace
    api: Api
    domain: str
    logging_level = logging.INFO

    def __init__(self, config_path: str | os.PathLike[str] = ".ini") -> None:
        self._tokens = configparser.ConfigParser(interpolation=None)
        self._tokens.read(config_path)
        self.parser = argparse.ArgumentParser(description=type(self).__doc__)
        self.parser.add_argument("-u", "--user", dest="email", help="the email that logs in")
        self.parser.add_argument(
            "--server", dest="server_type", choices=["prod", "dev"], default="prod", help="dev is this machine"
        )
        self.parser.add_argument("--customer", default="arch", help="whose service: arch, stage, acme, ...")
        self.add_extra_args()
        self.args = self.parser.parse_args()
        self.config_logging()

    def main(self) -> None:
        """Do it all."""
        self.domain = self.get_domain()
        self.api = Api(self.domain)
        self.before_login()
        if self.login():
            self.after_login()
            self.logout()
            self.after_logout()

    def config_logging(self) -> None:
        """Set up the package logging."""
        logging.basicConfig(
            level=self.logging_level, format="[%(asctime)-15s] %(levelname)-6s %(message)s", datefmt="%d/%b/%Y %H:%M:%S"
        )

    def add_extra_args(self) -> None:
        """Add the script's own arguments to `self.parser`."""

    def get_domain(self) -> str:
        """Where the service is, from `--server` and `--customer`."""
        if self.args.server_type == "dev":
            return "http://localhost"
        if not re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", self.args.customer):
            self.parser.error(f"--customer {self.args.customer!r} is no name of a customer")
        return f"https://{self.args.customer}.archfx.io"

    def login(self) -> bool:
        """Whether the service knows the user: by a token of the file, or else by a password, asked for at the terminal
        or read as a line from stdin."""
        if self._set_token_of_file():
            try:
                user = self.api("auth/user-info").get()
                _log.info("Logged in by token as %s", user["email"])
                return True
            except HttpClientError as error:
                _log.info("The token of the file is not taken, perhaps it has expired: %s", error)
        if not self.args.email:
            self.parser.error("the email of the user is needed: --user")
        ok = self.api.login(
            email=self.args.email,
            password=getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n"),
        )
        if ok:
            _log.info("Logged in as %s", self.args.email)
        return ok

    def logout(self) -> None:
        """Log out."""
        self.api.logout()

    def before_login(self) -> None:
        """What comes before: checks of the arguments, for instance."""

    def after_login(self) -> None:
        """The work."""
        _log.warning("This script does no work: after_login() is missing")

    def after_logout(self) -> None:
        """What comes last."""

    def _set_token_of_file(self) -> bool:
        section = f"c-{self.args.customer}"
        if not self._tokens.has_section(section):
            return False
        known = self._tokens[section]
        if token := known.get("token"):
            self.api.set_token(token, token_type="token")  # noqa: S106 (a word of the protocol)
        elif access := known.get("jwt_access"):
            self.api.set_token({"access": access, "refresh": known.get("jwt_refresh")}, token_type=DEFAULT_TOKEN_TYPE)
        return self.api.token is not None
