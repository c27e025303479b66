"""Pictures of the dashboard for its documentation.

    shots.py FOLDER ADDRESS VIEW=NAME...

VIEW is what stands behind `#/` in the address, with `@WIDTHxHEIGHT` for another window than 1280x800 and
`@dark` for dark colours, `@down500` scrolled down so far: `0/rollouts@390x844@dark=rollouts-phone`.
"""

import os
import re
import sys

from cdp import Browser, program

SIZE_BYTES_MAX = 150_000


def main():
    if not program():
        print("no chromium here, so no pictures: apt-get install chromium", file=sys.stderr)
        return 4
    folder, address, *views = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    page = Browser()
    try:
        page.size(1280, 800)
        page.go(address)
        page.wait("document.querySelector('#state .word')?.textContent")
        base = page.run("location.origin + location.pathname")
        for view in views:
            place, name = view.rsplit("=", 1)
            place, *options = place.split("@")
            size = next((o for o in options if re.fullmatch(r"\d+x\d+", o)), "1280x800")
            width, height = map(int, size.split("x"))
            page.size(width, height, scale=2 if width < 600 else 1, dark="dark" in options)
            page.go("about:blank")
            page.go(f"{base}#/{place}")
            page.wait("document.querySelector('main h1') && document.querySelector('main').innerText.length > 60")
            # Whatever was asked for has come, and nothing moves any more.
            page.wait("""new Promise((done) => { let still = 0;
                const look = () => { still = document.querySelector('main').ariaBusy === 'false' ? still + 1 : 0;
                    still > 6 ? done(true) : setTimeout(look, 100); };
                look(); })""")
            down = next((o[4:] for o in options if re.fullmatch(r"down\d+", o)), "0")
            page.run(f"window.scrollTo(0, {down})")
            path = os.path.join(folder, f"{name}.png")
            page.shot(path)
            size = os.path.getsize(path)
            print(f"{path} {size // 1000} kB")
            if size > SIZE_BYTES_MAX:
                print(f"{path} has more than {SIZE_BYTES_MAX} bytes", file=sys.stderr)
                return 1
    finally:
        page.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
