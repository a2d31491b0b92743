import numpy as np
import pytest

from gato_gym.images import patch_grid, patch_intervals, patchify, shrink


def test_intervals_of_the_published_example():
    # 64 high and 80 wide: row edges 0/32/64/96/128, column edges 0/26/51/77/102/128
    got = patch_intervals(4, 5).reshape(4, 5, 4)
    assert got[:, 0, :2].tolist() == [[0, 32], [32, 64], [64, 96], [96, 128]]
    assert got[0, :, 2:].tolist() == [[0, 26], [26, 51], [51, 77], [77, 102], [102, 128]]
    assert (got[:, :, :2] == got[:, :1, :2]).all()
    assert (got[:, :, 2:] == got[:1, :, 2:]).all()


@pytest.mark.parametrize("count", [1, 2, 3, 100, 127, 128, 129, 500])
def test_intervals_are_never_empty_and_stay_inside(count):
    low, high = patch_intervals(count, 1)[:, :2].T
    assert (low < high).all()
    assert low.min() == 0
    assert high.max() == 128
    assert (np.diff(low) >= 0).all()


def test_patches_are_in_raster_order():
    rows, columns = np.indices((32, 48))
    image = (rows // 16 * 10 + columns // 16).astype(np.uint8)[None, :, :, None]
    patches = patchify(image)
    assert patches.shape == (1, 6, 16, 16, 1)
    assert patches[0, :, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert (patches[0] == patches[0, :, :1, :1]).all()


def test_pixels_keep_their_place_within_a_patch():
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    patches = patchify(image)
    assert (patches[1, 2] == image[1, 16:, :16]).all()


def test_padding_is_zero_at_the_bottom_and_right():
    image = np.full((1, 20, 17, 3), 9, np.uint8)
    patches = patchify(image)
    assert patch_grid(20, 17) == (2, 2)
    whole = patches.reshape(2, 2, 16, 16, 3).transpose(0, 2, 1, 3, 4).reshape(32, 32, 3)
    assert (whole[:20, :17] == 9).all()
    assert whole[20:].sum() == whole[:, 17:].sum() == 0


def test_resizing_keeps_a_constant_and_the_corners_order():
    constant = patchify(np.full((2, 20, 17, 3), 77, np.uint8), fit="resize")
    assert (constant == 77).all()
    ramp = np.tile(np.arange(24, dtype=np.uint8) * 10, (16, 1))[None, :, :, None]
    stretched = patchify(ramp, fit="resize")
    whole = stretched.reshape(2, 16, 16).transpose(1, 0, 2).reshape(16, 32)
    assert (np.diff(whole.astype(int), axis=1) >= 0).all()


def test_resizing_by_hand():
    # from 2 to 4 pixels with half-pixel centres: 0, 1/4, 3/4, 1 of the way
    image = np.array([0, 100], np.uint8).reshape(1, 1, 2, 1)
    patches = patchify(image, patch_size=4, fit="resize")
    assert patches[0, 0, 0, :, 0].tolist() == [0, 25, 75, 100]


def test_a_fitting_image_is_not_resampled():
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    assert (patchify(image, fit="resize")[0, 0] == image[0]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_found_however_the_images_lie_in_memory(channels):
    images = np.random.default_rng(0).integers(0, 256, (3, 33, 50, channels), np.uint8)
    for view in (images[:, :, ::-1], images[::2, ::-1], images[..., ::-1], images.swapaxes(1, 2)):
        _, height, width, _ = view.shape
        patches = patchify(view)
        for patch in range(patches.shape[1]):
            row, column = (16 * index for index in divmod(patch, patch_grid(height, width)[1]))
            inside = view[:, row : row + 16, column : column + 16]
            got = patches[:, patch]
            assert (got[:, : inside.shape[1], : inside.shape[2]] == inside).all()
            assert not got[:, inside.shape[1] :].any()
            assert not got[:, :, inside.shape[2] :].any()


def test_no_images_are_no_patches():
    assert patchify(np.zeros((0, 20, 16, 3), np.uint8)).shape == (0, 2, 16, 16, 3)


@pytest.mark.parametrize(
    ("height", "width", "side"), [(84, 84, 42), (12, 20, 8), (9, 6, 6), (5, 7, 10)]
)
def test_a_shrunk_pixel_is_the_mean_of_what_it_covers(height, width, side):
    image = np.random.default_rng(0).integers(0, 256, (2, height, width), np.uint8)
    fine = image.repeat(side, axis=1).repeat(side, axis=2)  # each result covers whole fine pixels
    means = fine.reshape(2, side, height, side, width).mean((2, 4))
    small = shrink(image, side)
    assert small.shape == (2, side, side)
    assert small.dtype == np.uint8
    assert np.abs(small - means).max() <= 0.5 + 1e-6
