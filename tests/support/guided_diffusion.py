"""guided-diffusion's U-Net, written a second time from its description."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Res(nn.Module):
    """A residual block under its names; `resample` is None, F.interpolate or F.avg_pool2d."""

    def __init__(self, inner, outer, emb, scale_shift, resample=None):
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.ModuleDict(
            {"0": nn.GroupNorm(32, inner), "2": nn.Conv2d(inner, outer, 3, 1, 1)}
        )
        self.emb_layers = nn.ModuleDict({"1": nn.Linear(emb, (1 + scale_shift) * outer)})
        self.out_layers = nn.ModuleDict(
            {"0": nn.GroupNorm(32, outer), "3": nn.Conv2d(outer, outer, 3, 1, 1)}
        )
        if inner != outer:
            self.skip_connection = nn.Conv2d(inner, outer, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        resample = self.resample or (lambda h: h)
        h = self.in_layers["2"](resample(F.silu(self.in_layers["0"](x))))
        told = self.emb_layers["1"](F.silu(emb))[..., None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.out_layers["0"](h) * (1 + scale) + shift
        else:
            h = self.out_layers["0"](h + told)
        h = self.out_layers["3"](F.silu(h))
        x = resample(x)
        return h + (self.skip_connection(x) if hasattr(self, "skip_connection") else x)


class Attend(nn.Module):
    """Multi-head self-attention over positions, one head at a time."""

    def __init__(self, width, head_dim, per_head):
        super().__init__()
        self.head_dim, self.per_head = head_dim, per_head
        self.norm = nn.GroupNorm(32, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def rows(self, kind: int, head: int, width: int) -> slice:
        """Where q, k or v (0, 1, 2) of a head lies among the 3C rows."""
        d = self.head_dim
        start = (3 * head + kind) * d if self.per_head else kind * width + head * d
        return slice(start, start + d)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        flat = x.flatten(2)
        width = flat.shape[1]
        qkv = self.qkv(self.norm(flat))
        heads = []
        for head in range(width // self.head_dim):
            q, k, v = (qkv[:, self.rows(kind, head, width)] for kind in range(3))
            weights = (q.transpose(1, 2) @ k / math.sqrt(self.head_dim)).softmax(-1)
            heads.append(v @ weights.transpose(1, 2))
        return (flat + self.proj_out(torch.cat(heads, 1))).view_as(x)


class Strided(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, x, emb):
        return self.op(x)


class Doubled(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x, emb):
        return self.conv(F.interpolate(x, scale_factor=2))


class Reference(nn.Module):
    """The U-Net of Dhariwal & Nichol (2021), appendix A, as plainly as it can be said."""

    def __init__(
        self, widths, blocks, attention, head_dim, updown=True, scale_shift=True, per_head=True,
        channels=(3, 6),
    ):  # fmt: skip
        super().__init__()
        base, emb = widths[0], 4 * widths[0]

        def res(inner, outer, resample=None):
            return Res(inner, outer, emb, scale_shift, resample)

        def attend(level):
            return [Attend(widths[level], head_dim, per_head)] if attention[level] else []

        self.base = base
        self.time_embed = nn.ModuleDict({"0": nn.Linear(base, emb), "2": nn.Linear(emb, emb)})
        downs, skips, now = [[nn.Conv2d(channels[0], base, 3, 1, 1)]], [base], base
        for level, width in enumerate(widths):
            for _ in range(blocks):
                downs.append([res(now, width), *attend(level)])
                now = width
                skips.append(now)
            if level < len(widths) - 1:
                pooled = res(now, now, lambda h: F.avg_pool2d(h, 2)) if updown else Strided(now)
                downs.append([pooled])
                skips.append(now)
        self.middle_block = nn.ModuleList(
            [res(now, now), Attend(now, head_dim, per_head), res(now, now)]
        )
        ups = []
        for level, width in reversed(list(enumerate(widths))):
            for k in range(blocks + 1):
                ups.append([res(now + skips.pop(), width), *attend(level)])
                now = width
                if level and k == blocks:
                    double = res(now, now, lambda h: F.interpolate(h, scale_factor=2))
                    ups[-1].append(double if updown else Doubled(now))
        self.input_blocks = nn.ModuleList(map(nn.ModuleList, downs))
        self.output_blocks = nn.ModuleList(map(nn.ModuleList, ups))
        self.out = nn.ModuleDict(
            {"0": nn.GroupNorm(32, base), "2": nn.Conv2d(base, channels[1], 3, 1, 1)}
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.base // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        angles = t[:, None].float() * rates  # in fp32, as diffusers has it
        emb = torch.cat([angles.cos(), angles.sin()], 1).to(x.dtype)
        emb = self.time_embed["2"](F.silu(self.time_embed["0"](emb)))
        h, skips = self.input_blocks[0][0](x), []
        skips.append(h)
        for block in self.input_blocks[1:]:
            for part in block:
                h = part(h, emb)
            skips.append(h)
        for part in self.middle_block:
            h = part(h, emb)
        for block in self.output_blocks:
            h = torch.cat([h, skips.pop()], 1)
            for part in block:
                h = part(h, emb)
        return self.out["2"](F.silu(self.out["0"](h)))


def reference(*args, **options) -> Reference:
    net = Reference(*args, **options).double().eval()
    generator = torch.Generator().manual_seed(5)
    for p in net.parameters():  # norms too, or their places could be swapped unseen
        p.data = 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return net
