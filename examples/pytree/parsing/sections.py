# Files of "[section]" headers and "key = value" lines.


def strip_comment(line):
    for mark in ("#", ";"):
        if mark in line:
            line = line[:line.index(mark)]
    return line.strip()


def section_name(line):
    if not line.startswith("["):
        return None
    if not line.endswith("]") or len(line) < 3:
        raise ValueError("bad section header: " + line)
    return line[1:-1].strip()


def split_pair(line):
    key, mark, value = line.partition("=")
    key = key.strip()
    if not mark or not key:
        raise ValueError("expected key = value: " + line)
    return key, value.strip()


def parse_sections(text):
    sections = {"": {}}
    current = ""
    for line in map(strip_comment, text.split("\n")):
        name = section_name(line)
        if name is not None:
            current = name
            sections.setdefault(name, {})
        elif line:
            key, value = split_pair(line)
            sections[current][key] = value
    return sections


def lookup(sections, section, key, default=None):
    values = sections.get(section)
    if values is not None and key in values:
        return values[key]
    return sections[""].get(key, default)


def as_flag(value, default=False):
    if value is None:
        return default
    if value.lower() in ("yes", "true", "on", "1"):
        return True
    if value.lower() in ("no", "false", "off", "0"):
        return False
    raise ValueError("not a flag: " + value)


def as_list(value, separator=","):
    if not value:
        return []
    items = [item.strip() for item in value.split(separator)]
    return [item for item in items if item]


def write_sections(sections):
    lines = []
    for name in sorted(sections):
        if name:
            lines.append("[%s]" % name)
        for key, value in sorted(sections[name].items()):
            lines.append("%s = %s" % (key, value))
    return "\n".join(lines)


def overlay(base, extra):
    merged = {name: dict(values) for name, values in base.items()}
    for name, values in extra.items():
        merged.setdefault(name, {}).update(values)
    return merged
