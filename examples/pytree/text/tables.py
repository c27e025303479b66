# Laying out rows of cells as aligned plain text.


def cell_text(value, missing="-"):
    if value is None:
        return missing
    if isinstance(value, float):
        return "%.2f" % value
    return str(value)


def column_widths(rows):
    widths = []
    for row in rows:
        for index, value in enumerate(row):
            size = len(cell_text(value))
            if index == len(widths):
                widths.append(size)
            elif size > widths[index]:
                widths[index] = size
    return widths


def is_number(value):
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float))


def pad_cell(value, width):
    text = cell_text(value)
    padding = " " * (width - len(text))
    if is_number(value):
        return padding + text
    return text + padding


def format_row(row, widths, separator=" | "):
    cells = []
    for index, value in enumerate(row):
        cells.append(pad_cell(value, widths[index]))
    return separator.join(cells).rstrip()


def rule(widths, separator="-+-"):
    dashes = []
    for width in widths:
        dashes.append("-" * width)
    return separator.join(dashes)


def render_table(header, rows, with_rule=True):
    widths = column_widths([header] + rows)
    lines = [format_row(header, widths)]
    if with_rule:
        lines.append(rule(widths))
    for row in rows:
        lines.append(format_row(row, widths))
    return "\n".join(lines)


def sort_rows(rows, column, descending=False):
    present = [row for row in rows if row[column] is not None]
    absent = [row for row in rows if row[column] is None]
    present.sort(key=lambda row: row[column], reverse=descending)
    return present + absent


def transpose(rows, fill=None):
    width = max((len(row) for row in rows), default=0)
    columns = [[] for _ in range(width)]
    for row in rows:
        for index in range(width):
            value = row[index] if index < len(row) else fill
            columns[index].append(value)
    return columns
