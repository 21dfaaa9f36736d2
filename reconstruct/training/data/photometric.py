"""Random changes of light and camera, to which descriptors should be invariant.

Every effect has a probability and a random strength, so two crops of one surface differ strongly
and in different ways. The order is that of the physical world: light falls, the lens blurs, the
sensor is exposed and adds noise, the file is compressed.
"""

from __future__ import annotations

from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct.config import Section
from reconstruct.types import ImageArray

Pixels = NDArray[np.float32]
"""(H, W, 3) RGB, 0 to 1."""

Share = Annotated[float, Field(ge=0, le=1)]


class PhotometricConfig(Section):
    """Strengths are the largest that are drawn; 0 switches an effect off."""

    probability: Share = 0.5
    """Probability of each effect except night."""
    gamma: float = Field(0.6, ge=0)
    """|log| of the exponent of the gamma curve."""
    contrast: float = Field(0.6, ge=0)
    """|log| of the gain about the mean."""
    brightness: float = Field(0.15, ge=0)
    """Added to all pixels (white is 1)."""
    color: float = Field(0.2, ge=0)
    """|log| of the gain of each channel; saturation changes with it."""
    shading: float = Field(0.6, ge=0)
    """|log| of a smooth gain over the image; every other time with the edge of a shadow."""
    blur_px: float = Field(1.5, ge=0)
    """Sigma of an isotropic blur; motion blur is up to four times as long."""
    noise: float = Field(0.04, ge=0)
    """Sigma of the noise (white is 1)."""
    jpeg: int = Field(70, ge=0, le=99)
    """100 - quality."""
    night: Share = 0.15
    """Probability of a night-like image: dark, bluish or warm, lit by a few lamps, noisy."""


def vary(image: ImageArray, config: PhotometricConfig, rng: np.random.Generator) -> ImageArray:
    """A copy of an (H, W, 3) uint8 RGB image under other light, from another camera."""
    x: Pixels = image.astype(np.float32) / 255.0
    night = rng.random() < config.night
    effects = [_shade, _blur, _color, _contrast, _gamma, _noise]
    if night:  # the other changes of light, on top of it, would leave nothing to see
        x, effects = _darken(x, rng), [_blur, _color, _noise]
    for effect in effects:
        if rng.random() < config.probability:
            x = effect(x, config, rng).clip(0.0, 1.0)
    if night:
        x = _grain(x, rng.uniform(0.01, 0.05), rng)
    out = (x.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    if config.jpeg and rng.random() < config.probability:
        out = _compress(out, 100 - int(rng.integers(5, max(config.jpeg, 5) + 1)))
    return out


def _log_uniform(limit: float, rng: np.random.Generator, size: Any = None) -> Any:
    return np.exp(rng.uniform(-limit, limit, size))


def _shade(x: Pixels, config: PhotometricConfig, rng: np.random.Generator) -> Pixels:
    size = (x.shape[1], x.shape[0])
    coarse = rng.uniform(-config.shading, config.shading, (4, 4)).astype(np.float32)
    field = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        field = field - config.shading * _shadow(size, rng)
    return np.asarray(x * np.exp(field)[..., None], np.float32)


def _shadow(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """(H, W) 0 in the light, up to 1.5 in a half-plane in shadow, with a more or less soft edge."""
    x, y = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]))
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.7, 0.7)
    distance = (np.cos(angle) * x + np.sin(angle) * y - offset) / rng.uniform(0.01, 0.2)
    depth = rng.uniform(0.5, 1.5)
    return np.asarray(depth / (1.0 + np.exp(-distance.clip(-30, 30))), np.float32)


def _blur(x: Pixels, config: PhotometricConfig, rng: np.random.Generator) -> Pixels:
    sigma = rng.uniform(0.0, config.blur_px)
    if sigma < 0.2:
        return x
    if rng.random() < 0.7:
        return np.asarray(cv2.GaussianBlur(x, (0, 0), sigma), np.float32)
    length = 2 * int(2 * sigma) + 1  # motion: a line through the middle of the kernel
    angle, half = rng.uniform(0, np.pi), length // 2
    kernel = np.zeros((length, length), np.float32)
    ends = np.rint(half + half * np.array([[-1], [1]]) * [np.cos(angle), np.sin(angle)])
    first, last = ([int(v) for v in end] for end in ends)
    cv2.line(kernel, first, last, 1.0)
    return np.asarray(cv2.filter2D(x, -1, kernel / kernel.sum()), np.float32)


def _color(x: Pixels, config: PhotometricConfig, rng: np.random.Generator) -> Pixels:
    grey = x.mean(axis=2, keepdims=True)
    saturation = rng.uniform(max(0.0, 1.0 - 3.0 * config.color), 1.0 + config.color)
    gains = _log_uniform(config.color, rng, 3).astype(np.float32)
    return np.asarray((grey + saturation * (x - grey)) * gains, np.float32)


def _contrast(x: Pixels, config: PhotometricConfig, rng: np.random.Generator) -> Pixels:
    mean, gain = float(x.mean()), float(_log_uniform(config.contrast, rng))
    shift = rng.uniform(-config.brightness, config.brightness)
    return np.asarray((x - mean) * gain + mean + shift, np.float32)


def _gamma(x: Pixels, config: PhotometricConfig, rng: np.random.Generator) -> Pixels:
    return np.asarray(np.power(x, float(_log_uniform(config.gamma, rng))), np.float32)


def _noise(x: Pixels, config: PhotometricConfig, rng: np.random.Generator) -> Pixels:
    return _grain(x, rng.uniform(0.0, config.noise), rng)


def _grain(x: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    noise = rng.standard_normal(x.shape, np.float32)
    if rng.random() < 0.5:  # after demosaicing noise is no longer white
        noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * 1.8
    return np.asarray(x + sigma * noise, np.float32)


def _darken(x: Pixels, rng: np.random.Generator) -> Pixels:
    """Night: little light from the sky, and up to three lamps that light what is around them."""
    height, width = x.shape[:2]
    u, v = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    sky = np.array([0.8, 0.9, 1.2]) if rng.random() < 0.5 else np.array([1.2, 0.95, 0.6])
    light = rng.uniform(0.05, 0.25) * sky[None, None] * np.ones((height, width, 1))
    for _ in range(rng.integers(0, 4)):
        centre, radius = rng.uniform(-0.2, 1.2, 2), rng.uniform(0.1, 0.5)
        falloff = np.exp(-((u - centre[0]) ** 2 + (v - centre[1]) ** 2) / radius**2)
        warm = np.array([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.0)])
        light += rng.uniform(0.3, 1.5) * falloff[..., None] * warm
    linear = np.power(x, 2.2) * light
    return np.asarray(np.power(linear, 1.0 / rng.uniform(1.6, 2.6)).clip(0, 1), np.float32)


def _compress(image: ImageArray, quality: int) -> ImageArray:
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV cannot write JPEG in memory")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
