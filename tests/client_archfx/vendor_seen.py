"""What there is to see of an id, of the vendor's and of ours alike.

Belongs here: that function, which needs neither package. Does not belong here: any comparison.
"""


def seen(found):
    names = ["formatted_id", "get_id", "get_type", "get_parts", "get_device", "get_index"]
    values = ["stype", "scope", "var_id", "scope_hex", "var_hex"]
    told = {"str": str(found)}
    for name in names + values:
        try:
            value = getattr(found, name)
            told[name] = value() if callable(value) else value
        except (AttributeError, ValueError, KeyError):
            told[name] = None
    return told
