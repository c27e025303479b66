# Turning identifiers from one naming convention into another.


def is_boundary(previous, current):
    if previous is None:
        return False
    if current.isupper() and not previous.isupper():
        return True
    return current.isdigit() and previous.isalpha()


def split_identifier(name):
    parts = [""]
    previous = None
    for char in name:
        if char in "_- ":
            parts.append("")
        elif is_boundary(previous, char):
            parts.append(char)
        else:
            parts[-1] += char
        previous = char
    return [part.lower() for part in parts if part]


def to_snake(name, upper=False):
    joined = "_".join(split_identifier(name))
    if upper:
        return joined.upper()
    return joined


def to_kebab(name, separator="-"):
    parts = split_identifier(name)
    if not parts:
        return ""
    return separator.join(parts)


def capitalize_word(word):
    if not word:
        return word
    return word[0].upper() + word[1:]


def to_camel(name, first_upper=False):
    result = ""
    for index, part in enumerate(split_identifier(name)):
        if index == 0 and not first_upper:
            result += part
        else:
            result += capitalize_word(part)
    return result


def title_case(sentence, small_words=("a", "an", "of", "the", "and")):
    words = []
    for index, word in enumerate(sentence.lower().split()):
        if index > 0 and word in small_words:
            words.append(word)
        else:
            words.append(capitalize_word(word))
    return " ".join(words)


def swap_prefix(name, old, new):
    if not name.startswith(old):
        return name
    rest = name[len(old):]
    return new + rest
