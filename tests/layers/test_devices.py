"""Checks that the kernel fragments of both trees support the components of the boards. kernel.py tests the resulting
kernel."""

import pytest
from devices import BOARDS, FRAGMENTS, YOCTO_BOARDS, fragments, parts, settings


def test_each_row_is_valid():
    for part in parts():
        assert set(part.boards) <= {*BOARDS, *YOCTO_BOARDS}, part
        assert part.name and part.device and part.driver, part
        assert part.symbol and part.symbol.replace("_", "").isalnum() and part.symbol == part.symbol.upper(), part
        assert part.value in ("y", "m", "n"), part
        # A module is found by its name; a built-in driver needs none.
        assert part.value != "m" or part.driver != "-", part


@pytest.mark.parametrize("board", [*BOARDS, *YOCTO_BOARDS])
def test_each_board_has_all_required_parts(board):
    here = {part.name.split(":")[0] for part in parts() if board in part.boards}
    needed = {"SD card", "Wi-Fi", "USB camera", "camera", "watchdog", "screen", "serial line, full UART", "random numbers"}
    if board not in YOCTO_BOARDS:
        needed |= {"H.264 encoder", "video processor"}
    if board in YOCTO_BOARDS or "libcamera" in BOARDS[board].splitlines()[0].split():
        needed |= {"camera receiver", "image processor", "Camera Module 1", "Camera Module 2", "Camera Module 3", "HQ Camera"}
    else:
        needed |= {"camera through the firmware"}
    assert needed <= here, needed - here
    assert any(name.startswith("USB") for name in here - {"USB camera"})


@pytest.mark.parametrize("tree", FRAGMENTS)
def test_both_trees_set_every_symbol(tree):
    """Each symbol is set explicitly, because Yocto disables a symbol that is not set and has no default, and because
    a filter in Kconfig changes defaults."""
    for board in [*BOARDS, *YOCTO_BOARDS] if tree == "yocto" else BOARDS:
        have = settings(*fragments(tree, board))
        wanted = {part.symbol: part.value for part in parts() if board in part.boards}
        assert {symbol: value for symbol, value in wanted.items() if have.get(symbol) != value} == {}, board
