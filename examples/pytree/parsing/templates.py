# Templates with {{ name }} places and simple filters.

OPEN = "{{"
CLOSE = "}}"


def split_template(text):
    pieces = []
    while OPEN in text:
        start = text.index(OPEN)
        end = text.find(CLOSE, start)
        if end == -1:
            raise ValueError("place is never closed")
        pieces.append((False, text[:start]))
        pieces.append((True, text[start + len(OPEN):end].strip()))
        text = text[end + len(CLOSE):]
    pieces.append((False, text))
    return pieces


def resolve(values, path):
    current = values
    for part in path.split("."):
        if not isinstance(current, dict) or part not in current:
            return None
        current = current[part]
    return current


def apply_filter(value, name):
    if name == "upper":
        return str(value).upper()
    if name == "trim":
        return str(value).strip()
    if name == "count":
        return len(value)
    raise ValueError("no such filter: " + name)


def fill_place(place, values, strict=False):
    names = [part.strip() for part in place.split("|")]
    value = resolve(values, names[0])
    if value is None:
        if strict:
            raise KeyError(names[0])
        return ""
    for name in names[1:]:
        value = apply_filter(value, name)
    return str(value)


def fill(text, values, strict=False):
    result = ""
    for is_place, piece in split_template(text):
        if is_place:
            result += fill_place(piece, values, strict)
        else:
            result += piece
    return result


def places(text):
    names = []
    for is_place, piece in split_template(text):
        name = piece.split("|")[0].strip()
        if is_place and name not in names:
            names.append(name)
    return names


def missing_values(text, values):
    missing = []
    for name in places(text):
        if resolve(values, name) is None:
            missing.append(name)
    return missing


def repeat(text, rows, separator="\n"):
    filled = []
    for number, row in enumerate(rows, 1):
        values = dict(row)
        values["number"] = number
        filled.append(fill(text, values))
    return separator.join(filled)
