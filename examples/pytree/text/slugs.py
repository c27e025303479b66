# Names for addresses and files: short, safe and unique.

MAX_LENGTH = 60
RESERVED = ("con", "nul", "aux", "prn")


def is_safe(char):
    if char.isdigit():
        return True
    return "a" <= char <= "z"


def slugify(title, separator="-"):
    result = ""
    for char in title.lower():
        if is_safe(char):
            result += char
        elif result and not result.endswith(separator):
            result += separator
    return trim_slug(result.strip(separator), MAX_LENGTH)


def trim_slug(slug, limit, separator="-"):
    if len(slug) <= limit:
        return slug
    cut = slug[:limit]
    if separator in cut:
        cut = cut[:cut.rindex(separator)]
    return cut


def unique_slug(slug, taken):
    if slug not in taken:
        return slug
    number = 2
    while "%s-%d" % (slug, number) in taken:
        number += 1
    return "%s-%d" % (slug, number)


def split_extension(filename):
    dot = filename.rfind(".")
    if dot <= 0:
        return filename, ""
    return filename[:dot], filename[dot:]


def safe_filename(filename):
    stem, extension = split_extension(filename)
    slug = slugify(stem, "_")
    if not slug or slug in RESERVED:
        slug = "file"
    return slug + extension.lower()


def bump_version(filename, separator="_v"):
    stem, extension = split_extension(filename)
    head, mark, tail = stem.rpartition(separator)
    if mark and tail.isdigit():
        return head + separator + str(int(tail) + 1) + extension
    return stem + separator + "2" + extension


def is_slug(value):
    if not value or len(value) > MAX_LENGTH:
        return False
    for char in value:
        if char != "-" and not is_safe(char):
            return False
    return value[0] != "-" and value[-1] != "-"
