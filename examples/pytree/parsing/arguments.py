# Command lines: flags, options with values, and plain arguments.


def is_option(word):
    if word == "-" or word == "--":
        return False
    return word.startswith("-")


def option_name(word):
    name = word.lstrip("-")
    if "=" in name:
        name = name[:name.index("=")]
    return name.replace("-", "_")


def option_value(word, rest):
    if "=" in word:
        return word[word.index("=") + 1:]
    if not rest or is_option(rest[0]):
        raise ValueError("option needs a value: " + word)
    return rest.pop(0)


def parse_arguments(words, flags=()):
    options, plain = {}, []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if is_option(word):
            store_option(options, word, rest, flags)
        else:
            plain.append(word)
    return options, plain + rest


def store_option(options, word, rest, flags):
    name = option_name(word)
    if name in flags:
        options[name] = True
    elif name in options:
        raise ValueError("given twice: " + word)
    else:
        options[name] = option_value(word, rest)


def require(options, names):
    missing = []
    for name in names:
        if options.get(name) is None:
            missing.append("--" + name.replace("_", "-"))
    if missing:
        raise ValueError("missing: " + ", ".join(missing))


def as_number(options, name, default=None, lowest=None):
    value = options.get(name, default)
    if value is None:
        return None
    number = int(value)
    if lowest is not None and number < lowest:
        raise ValueError("%s must be at least %d" % (name, lowest))
    return number


def split_command(line):
    words = []
    quoted = False
    for index, piece in enumerate(line.split('"')):
        quoted = index % 2 == 1
        if quoted:
            words.append(piece)
        else:
            words.extend(piece.split())
    return words
