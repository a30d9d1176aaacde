"""Accuracy against size right after one cut, nothing trained: the table of `one_cut` as a chart.

    pip install matplotlib
    cargo run --release --locked -p secateur --example one_cut -- MODEL DATA PREPROCESS params \
        0.5,0.4,0.3,0.254,0.2,0.15,0.1 2048 0 svd:taylor:labels white:fisher:output fisher:fisher:output > cuts.tsv
    python docs/experiments/curves.py cuts.tsv params TITLE curves.svg [NAME=SHARE:TOP1,SHARE:TOP1 ...]

Dashed: right after the cut, batch norm carried over; solid: with the layers fitted anew to the outputs
of the uncut network. Further points, such as those of `benches/peers/pruning.py`, are named; both numbers in percent.
"""

import csv
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["svg.hashsalt"] = "curves"
from matplotlib import pyplot


def main():
    table, unit, title, target, *points = sys.argv[1:]
    with open(table) as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    figure, axes = pyplot.subplots(figsize=(7, 5.5))
    names = dict.fromkeys((row["basis"], row["score"]) for row in rows)
    for colour, (basis, score) in zip(("C0", "C1", "C2", "C3"), names):
        own = [row for row in rows if (row["basis"], row["score"]) == (basis, score)]
        shares = [100 * float(row[unit]) for row in own]
        for column, style, what in (("carried", "--", "cut"), ("refit", "-", "cut and refit")):
            accuracies = [100 * float(row[column]) for row in own]
            axes.plot(shares, accuracies, style, marker=".", color=colour, label=f"{basis}, {score}: {what}")
    for marker, point in zip("svD^x*", points):
        name, places = point.split("=")
        places = [[float(number) for number in place.split(":")] for place in places.split(",")]
        axes.plot(*zip(*places), ":", marker=marker, color="black", label=name)
    axes.set(xlabel=f"{'parameters' if unit == 'params' else 'multiply-accumulates'} kept, %", ylabel="test top-1, %", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
