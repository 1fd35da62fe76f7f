"""Triangles to pixels: nearer hides farther, neighbours leave no gaps, cut-outs have holes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from segcam.sources.street.mesh import CUTOUT, Builder, Mesh, Surface, merge, moved, tube
from segcam.sources.street.raster import COLUMNS, fill, project
from segcam.sources.street.textures import TEXTURE, bank

SIZE = 64
#: Looks along z from the origin; a metre wide at a metre's distance fills the picture.
CAMERA = np.array([1, 0, 0, 0, 1, 0, 0, 0, 1, SIZE, SIZE / 2, SIZE / 2], float)
UP = np.array([0.0, 1.0, 0.0])


def seen(mesh: Mesh) -> NDArray[np.int64]:
    """(64, 64) class of each pixel, -1: nothing."""
    source, screen = np.empty(3 * len(mesh.geo), np.int32), np.empty((3 * len(mesh.geo), COLUMNS))
    count = project(mesh.geo, mesh.mat, CAMERA, UP, SIZE, SIZE, screen, source)
    depth, shown = np.empty((SIZE, SIZE), np.float32), np.empty((SIZE, SIZE), np.int32)
    fill(screen, source, count, mesh.mat, *bank(), 0, SIZE, depth, shown)
    labels = mesh.mat[:, 4].astype(int)
    return np.where(shown >= 0, labels[source[:count][shown]] if count else -1, -1)


def board(
    label: int, x0: float, x1: float, y0: float, y1: float, z: float, flags: int = 0, name: str = "plain"
) -> Mesh:
    build = Builder()
    surface = Surface(TEXTURE[name], label, (1, 1, 1), flags)
    build.quad((x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z), surface)
    return build.mesh()


def test_the_nearer_hides_the_farther_in_either_order() -> None:
    near, far = board(1, -0.5, 0.5, -0.5, 0.5, 2), board(2, -2, 2, -2, 2, 4)
    for order in ((near, far), (far, near)):
        labels = seen(merge(order))
        assert (labels >= 0).all()
        # A metre at two metres' distance is half the picture.
        assert (labels[16:48, 16:48] == 1).all() and (labels == 1).sum() == 32 * 32


def test_faces_that_cross_are_parted_where_they_cross() -> None:
    build = Builder()
    build.quad((-2, -2, 2), (2, -2, 6), (2, 2, 6), (-2, 2, 2), Surface(0, 3))
    labels = seen(merge([build.mesh(), board(4, -4, 4, -4, 4, 4)]))
    assert (labels[:, :30] == 3).all() and (labels[:, 34:] == 4).all()


def test_what_is_turned_away_or_behind_is_not_seen() -> None:
    front = board(1, -1, 1, -1, 1, 2)
    assert (seen(front) == 1).any()
    assert (seen(moved(front, 0, 0, 4, turn=np.pi)) == -1).all()
    assert (seen(moved(front, 0, 0, -4)) == -1).all()
    assert (seen(moved(board(1, -1, 1, -1, 1, 2, CUTOUT), 0, 0, 4, turn=np.pi)) == 1).any()


def test_a_floor_reaches_to_the_camera_and_below_it() -> None:
    build = Builder()
    build.quad((-50, -1, -20), (50, -1, -20), (50, -1, 500), (-50, -1, 500), Surface(0, 0))
    labels = seen(build.mesh())
    assert (labels[33:] == 0).all() and (labels[:31] == -1).all()


def test_cutouts_have_holes() -> None:
    build = board(5, -0.9, 0.9, -0.9, 0.9, 2, CUTOUT, "disc")
    labels = seen(merge([build, board(2, -4, 4, -4, 4, 4)]))
    assert labels[32, 32] == 5 and labels[5, 5] == 2
    assert abs((labels == 5).sum() / 57.6**2 - np.pi / 4) < 0.05


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=6), st.floats(1, 3))
def test_triangles_around_a_point_meet_without_gap_or_overlap(inside: list[tuple[float, float]], z: float) -> None:
    corners = [(-9.0, -9.0), (9.0, -9.0), (9.0, 9.0), (-9.0, 9.0)]
    for x, y in inside:
        covered = np.zeros((SIZE, SIZE), int)
        for n in range(4):
            build = Builder()
            points = [(*corners[n], z), (*corners[(n + 1) % 4], z), (x, y, z)]
            build.face(points, [(0, 0), (1, 0), (0, 1)], Surface(0, 1))
            covered += seen(build.mesh()) >= 0
        assert (covered == 1).all()


def test_a_tube_is_as_wide_as_its_radius() -> None:
    labels = seen(tube((0, -3, 4), (0, 3, 4), 0.5, Surface(0, 5), 24))
    width = (labels == 5).sum(1)
    assert width.min() >= 15 and width.max() <= 17
