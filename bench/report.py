"""The results of bench/bench: a table of everything, a short one for the README, a plot."""

import statistics

FIGURES = (("wall_us", "wall ms", 1000), ("cpu_us", "CPU ms", 1000), ("rss_kib", "RSS KiB", 1), ("pss_kib", "PSS KiB", 1),
           ("private_kib", "private KiB", 1), ("dirty_kib", "private dirty KiB", 1), ("bytes", "bytes", 1))
# Of the short table: scenario and figure.
SHORT = (("run engine", "wall_us"), ("run engine", "cpu_us"), ("run min", "wall_us"), ("run rootless", "wall_us"), ("create", "wall_us"),
         ("start", "wall_us"), ("exec", "wall_us"), ("state", "wall_us"), ("kill", "wall_us"), ("delete", "wall_us"),
         ("40 runs at once", "wall_us"), ("run, 200 mounts", "wall_us"), ("version", "wall_us"), ("init's memory", "dirty_kib"),
         ("binary", "bytes"))
PLOTTED = ("run engine", "run without seccomp", "run min", "run rootless", "create", "start", "exec", "state", "kill", "delete", "version")
COLOURS = {"floor": "#9a9a9a", "rt": "#1f77b4", "runc": "#d62728", "crun": "#2ca02c", "youki": "#9467bd"}
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


def figure(value, scale):
    return f"{value / scale:.2f}" if scale > 1 and value < 100000 else f"{value / scale:.0f}"


def medians(by_runtime, key):
    return {name: statistics.median(s[key] for s in samples) for name, samples in by_runtime.items() if key in samples[0]}


def table(results, names, rounds):
    """One table of all scenarios: median (minimum) per runtime, and the ratio of medians to rt in brackets [ ]."""
    lines = ["| scenario | figure | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for scenario, by_runtime in results.samples.items():
        for key, title, scale in FIGURES:
            middle = medians(by_runtime, key)
            if not middle:
                continue
            cells = []
            for name in names:
                if name not in middle:
                    cells.append("fails" if name in results.failures.get(scenario, {}) else "-")
                    continue
                least = min(sample[key] for sample in by_runtime[name])
                cell = f"{figure(middle[name], scale)} ({figure(least, scale)})"
                if name != "rt" and middle.get("rt"):
                    cell += f" [{middle[name] / middle['rt']:.2f}]"
                cells.append(cell)
            count = max(len(samples) for samples in by_runtime.values())
            label = scenario if count == rounds or key == "bytes" else f"{scenario} ({count} rounds)"
            lines.append(f"| {label} | {title} | " + " | ".join(cells) + " |")
    for scenario, by_runtime in results.failures.items():
        for name, errors in by_runtime.items():
            lines.append(f"\n{name}, {scenario}: {len(errors)} failed; the first: `{errors[0].splitlines()[-1]}`")
    return "\n".join(lines)


def growth_table(growth, names):
    """Median wall time in ms by number."""
    lines = []
    for axis, by_number in growth.items():
        lines += [f"| {axis} | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for number, by_runtime in by_number.items():
            middle = medians(by_runtime, "wall_us")
            cells = [figure(middle[name], 1000) if name in middle else "-" for name in names]
            lines.append(f"| {number} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def short_table(results, names):
    """Medians, and in brackets the ratio of rt's to the others'."""
    titles = {key: (title, scale) for key, title, scale in FIGURES}
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for scenario, key in SHORT:
        middle = medians(results.samples.get(scenario, {}), key)
        if "rt" not in middle:
            continue
        title, scale = titles[key]
        cells = []
        for name in names:
            if name not in middle:
                cells.append("-")
            elif name == "rt":
                cells.append(f"**{figure(middle[name], scale)}**")
            else:
                cells.append(f"{figure(middle[name], scale)} ({middle['rt'] / middle[name]:.2f})")
        lines.append(f"| {scenario}, {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def into_readme(path, text):
    """Puts a text between the marks of the README, if it has them."""
    with open(path, encoding="utf-8") as file:
        content = file.read()
    if BEGIN not in content or END not in content:
        return
    before, rest = content.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


# --- the plot ------------------------------------------------------------------------------------------------------------


class Svg:
    def __init__(self, width, height):
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
                      'font-family="sans-serif" font-size="11">', f'<rect width="{width}" height="{height}" fill="white"/>']

    def text(self, x, y, text, anchor="start", size=11):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{text}</text>')

    def rect(self, x, y, width, height, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')

    def line(self, points, colour, width=1.5):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')

    def done(self):
        return "\n".join([*self.parts, "</svg>", ""])


def bars(svg, results, names, left, top, width):
    """Ratios of the medians of wall time to rt's, a group of bars per scenario; longer ones are cut, with their number."""
    longest, y = 6, top
    svg.text(left, y, "wall time of rt = 1 (medians)", size=13)
    for scenario in PLOTTED:
        middle = medians(results.samples.get(scenario, {}), "wall_us")
        if "rt" not in middle:
            continue
        y += 8
        svg.text(left + 88, y + 5 * len(middle) + 3, scenario, "end")
        for name in (name for name in names if name in middle):
            ratio = middle[name] / middle["rt"]
            svg.rect(left + 95, y, min(ratio, longest) * (width - 150) / longest, 9, COLOURS.get(name, "#888888"))
            label = f"{ratio:.2f} ({figure(middle[name], 1000)} ms)"
            svg.text(left + 98 + min(ratio, longest) * (width - 150) / longest, y + 8.5, label, size=8)
            y += 10
    return y


def curves(svg, axis, by_number, names, left, top, width, height):
    """Median wall time by number."""
    rows = [(number, medians(by_runtime, "wall_us")) for number, by_runtime in by_number.items()]
    highest = max((value for _, middle in rows for value in middle.values()), default=1)
    last = max(number for number, _ in rows) or 1
    svg.text(left, top, f"wall ms by {axis}", size=13)
    bottom = top + height
    svg.line([(left + 40, top + 10), (left + 40, bottom), (left + width, bottom)], "#444444", 1)
    for part in (0, 0.5, 1):
        svg.text(left + 36, bottom - part * (height - 20) + 4, figure(part * highest, 1000), "end", 9)
    for number, _ in rows:
        svg.text(left + 40 + number / last * (width - 50), bottom + 12, number, "middle", 9)
    for name in names:
        points = [(left + 40 + number / last * (width - 50), bottom - middle[name] / highest * (height - 20))
                  for number, middle in rows if name in middle]
        if points:
            svg.line(points, COLOURS.get(name, "#888888"))


def plot(results, growth, names):
    svg = Svg(900, 640)
    for index, name in enumerate(names):
        svg.rect(20 + index * 80, 12, 10, 10, COLOURS.get(name, "#888888"))
        svg.text(34 + index * 80, 21, name)
    bars(svg, results, names, 20, 45, 470)
    for index, (axis, by_number) in enumerate(growth.items()):
        curves(svg, axis, by_number, names, 520, 45 + index * 150, 360, 110)
    return svg.done()
