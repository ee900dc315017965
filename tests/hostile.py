"""Names that are more than names in one place or another where they are shown; every test of such a place has them all.

Belongs here: the list. Does not belong here: any test.
"""

HOSTILE = [
    "![x](https://evil.example/beacon.png)",
    "[Sign in again](https://evil.example)",
    "https://evil.example/www",
    "www.evil.example",
    "<img src=https://evil.example/beacon.png onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a | b | ![x](https://evil.example)",
    "a\\| ![x](https://evil.example) |",
    "`code` ``more`` ![x](y)",
    "` ![x](https://evil.example) `",
    "one\ntwo\n\n# three",
    "one\r\n| ![x](https://evil.example) |",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "=cmd|'/c calc'!A1",
    "'; DROP TABLE stations; --",
    '") |> drop(columns: ["_value"]) //',
    "../../etc/passwd",
    "#/+",
    "x,y=1 z=2",
    "{{7*7}}",
    "$(reboot)",
    "*bold* _under_ ~~gone~~",
    "",
    " ",
    "\x00",
    "\ud800",
]
