# Comma-separated lines with quoted fields.


def split_line(line, separator=","):
    fields = [""]
    quoted = False
    for char in line:
        if char == '"':
            quoted = not quoted
            fields[-1] += char
        elif char == separator and not quoted:
            fields.append("")
        else:
            fields[-1] += char
    return [unquote(field) for field in fields]


def unquote(field):
    field = field.strip()
    if len(field) >= 2 and field[0] == '"' and field[-1] == '"':
        return field[1:-1].replace('""', '"')
    return field


def needs_quotes(field, separator=","):
    if not field:
        return False
    if field[0] == " " or field[-1] == " ":
        return True
    return separator in field or '"' in field


def join_line(fields, separator=","):
    parts = []
    for field in fields:
        if needs_quotes(field, separator):
            field = '"' + field.replace('"', '""') + '"'
        parts.append(field)
    return separator.join(parts)


def guess_type(field):
    digits = field[1:] if field.startswith("-") else field
    if digits.isdigit():
        return int(field)
    whole, mark, fraction = digits.partition(".")
    if mark and whole.isdigit() and fraction.isdigit():
        return float(field)
    if field == "":
        return None
    return field


def read_records(lines, typed=False):
    header = None
    records = []
    for line in lines:
        fields = split_line(line)
        if header is None:
            header = fields
            continue
        values = [guess_type(field) if typed else field for field in fields]
        records.append(dict(zip(header, values)))
    return records


def write_records(records, columns):
    lines = [join_line(columns)]
    for record in records:
        values = []
        for column in columns:
            value = record.get(column)
            values.append("" if value is None else str(value))
        lines.append(join_line(values))
    return lines


def bad_lines(lines, width):
    bad = []
    for number, line in enumerate(lines, 1):
        if len(split_line(line)) != width:
            bad.append(number)
    return bad
