"""The pages whose outputs a command writes."""

from benchmarks.guide import BLOCK, PAGES, SHOWN, figures, first, wrapped


def test_each_output_stands_below_its_command_and_is_known():
    blocks = [block for page in PAGES for block in BLOCK.finditer(page.read_text())]
    assert [block["key"] for block in blocks] == list(SHOWN)
    assert all(block["command"].strip() and block["output"].strip() for block in blocks)
    marks = sum(page.read_text().count("<!-- benchmarks/guide.py:") for page in PAGES)
    assert marks == len(blocks)


def test_outputs_are_cut_to_what_the_page_is_about():
    told = "Served by gunicorn.\nround 1 of 1\nwaiting for it\nNo strategy is measurably better.\nEverything is in x\n"
    assert first(told) == "Served by gunicorn.\nround 1 of 1\n\nNo strategy is measurably better.\n...\n"
    assert wrapped(["a " * 80, "size  connections  " + "x" * 150]).count("\n") == 3


def test_some_rows_of_the_figures_are_shown():
    printed = "| figure | own |\n| --- | --- |\n| requests | 3 |\n| response p50 (ms) | 2 |\n| other | 1 |\n"
    assert figures(printed) == "| figure | own |\n| --- | --- |\n| requests | 3 |\n| response p50 (ms) | 2 |\n"
