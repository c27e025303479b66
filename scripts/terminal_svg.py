#!/usr/bin/env python3
"""Draws what `tmux capture-pane -e -p` gives as an SVG: terminal_svg.py COLUMNS <captured >picture.svg

Standard library only. Every run of one style is stretched to its cells, so that columns stay aligned
whatever monospace font the reader has.
"""
import re
import sys
import unicodedata
from xml.sax.saxutils import escape

CELL_W, CELL_H, FONT, PAD = 8.4, 18, 14, 10
GROUND, INK = "#11151c", "#d5d9e0"
NAMED = ["#1b1f27", "#e0626b", "#7fbf6a", "#d9b65c", "#5f9fe0", "#c28ae0", "#4fb9c4", "#d5d9e0",
         "#6b7380", "#f07f88", "#98d485", "#ecd07c", "#80b8f0", "#d6a8f0", "#70d4de", "#ffffff"]


def colour(index):
    """A colour of the palette of 256."""
    if index < 16:
        return NAMED[index]
    if index < 232:
        steps = [0, 95, 135, 175, 215, 255]
        index -= 16
        return "#%02x%02x%02x" % (steps[index // 36], steps[index // 6 % 6], steps[index % 6])
    return "#%02x%02x%02x" % ((8 + 10 * (index - 232),) * 3)


class Style:
    def __init__(self):
        self.clear()

    def clear(self):
        self.fg = self.bg = None
        self.on = set()

    def take(self, codes):
        codes = [int(code or 0) for code in re.split("[;:]", codes)]
        while codes:
            code = codes.pop(0)
            if code == 0:
                self.clear()
            elif code in (1, 2, 3, 4, 7):
                self.on.add(code)
            elif code == 22:
                self.on -= {1, 2}
            elif code in (23, 24, 27):
                self.on.discard(code - 20)
            elif 30 <= code <= 37 or 90 <= code <= 97:
                self.fg = colour(code - 30 if code < 90 else code - 82)
            elif 40 <= code <= 47 or 100 <= code <= 107:
                self.bg = colour(code - 40 if code < 100 else code - 92)
            elif code in (38, 48):
                kind = codes.pop(0)
                value = colour(codes.pop(0)) if kind == 5 else "#%02x%02x%02x" % tuple(
                    codes.pop(0) for _ in range(3))
                self.fg, self.bg = (value, self.bg) if code == 38 else (self.fg, value)
            elif code == 39:
                self.fg = None
            elif code == 49:
                self.bg = None

    def drawn(self):
        fg, bg = self.fg or INK, self.bg
        if 7 in self.on:
            fg, bg = bg or GROUND, fg
        return fg, bg, frozenset(self.on - {7})


def width(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def runs(line, style):
    """Pieces of a line and how each is drawn. A style goes on over the line's end."""
    for piece in re.split(r"(\x1b\[[0-9;:]*m)", line.replace("\x0e", "").replace("\x0f", "")):
        if piece.startswith("\x1b["):
            style.take(piece[2:-1])
        elif piece:
            # Blanks stay blank: a piece of nothing but blanks is not stretched text.
            yield from ((part, style.drawn()) for part in re.split(r"( {2,})", piece) if part)


def main():
    columns = int(sys.argv[1])
    lines = sys.stdin.read().split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    w, h = columns * CELL_W + 2 * PAD, len(lines) * CELL_H + 2 * PAD
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w:.0f} {h:.0f}" width="{w:.0f}" '
           f'height="{h:.0f}" font-family="ui-monospace, SFMono-Regular, Menlo, DejaVu Sans Mono, '
           f'Consolas, monospace" font-size="{FONT}">',
           f'<rect width="100%" height="100%" rx="6" fill="{GROUND}"/>']
    style = Style()
    for row, line in enumerate(lines):
        x, y = 0, PAD + row * CELL_H
        for text, (fg, bg, on) in runs(line, style):
            cells = width(text)
            left, wide = PAD + x * CELL_W, cells * CELL_W
            if bg:
                out.append(f'<rect x="{left:.1f}" y="{y}" width="{wide:.1f}" height="{CELL_H}" fill="{bg}"/>')
            if text.strip():
                more = ' font-weight="bold"' if 1 in on else ""
                more += ' opacity=".6"' if 2 in on else ""
                more += ' font-style="italic"' if 3 in on else ""
                more += ' text-decoration="underline"' if 4 in on else ""
                out.append(f'<text x="{left:.1f}" y="{y + 14}" fill="{fg}" textLength="{wide:.1f}" '
                           f'xml:space="preserve"{more}>{escape(text)}</text>')
            x += cells
    out.append("</svg>")
    print("\n".join(out))


if __name__ == "__main__":
    main()
