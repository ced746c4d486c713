"""The configuration of an AdaptIR adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from peft import PeftConfig


class _Method(str, Enum):  # noqa: UP042  peft cuts the name out of `str(member)`, which has to hold the class's too
    """Like peft's `PeftType`, which is an enumeration of strings too, and closed."""

    ADAPTIR = "ADAPTIR"


METHOD: Any = _Method.ADAPTIR  # a member of `PeftType` for all that peft does with it
BRANCHES = ("local", "global", "channel")


@dataclass
class AdaptIRConfig(PeftConfig):
    """What an AdaptIR adapter looks like and where it goes.

    Args:
        target_modules (`list[str]` or `str`):
            Modules that get an adapter beside them: names, ends of names, or a regular expression. Convolutions (`nn.Conv2d`), linear
            layers and whole blocks that take and return one feature map (a resnet, a feed-forward network).
        exclude_modules (`list[str]` or `str`, *optional*):
            Of these, the ones that get none.
        reduction (`int`, defaults to 24):
            The bottleneck is so many times narrower than the module's input; the paper has 24 for IPT and 14 for EDT.
        min_hidden_size (`int`, defaults to 4):
            But it is not narrower than this.
        branches (`list[str]`, defaults to all three):
            Of `"local"`, `"global"`, `"channel"`, for ablations. The last weighs what the others say, so one of them must be there.
        interaction (`bool`, defaults to `True`):
            Local and global branch gate each other (the paper's adaptive combination); otherwise they are summed.
        norm (`"layer"`, `"group"` or `"none"`, defaults to `"layer"`):
            After the first 1x1. The authors have batch normalisation, which depends on what else is in the batch and behaves differently in
            training; `"layer"` normalises every position over its channels, `"group"` every image.
        init_weights (`bool`, defaults to `True`):
            The last 1x1 starts at zero, so a fresh adapter changes nothing. `False`, for tests, starts it at random.
        modules_to_save (`list[str]`, *optional*):
            Other modules that are trained and saved along.
        layers_to_transform (`list[int]` or `int`, *optional*), layers_pattern (`list[str]` or `str`, *optional*):
            As in peft: numbers of the layers, and the name of the list that they are in.
    """

    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules that get an adapter beside them."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules of these that get none."})
    reduction: int = field(default=24, metadata={"help": "How many times narrower than its input the bottleneck is."})
    min_hidden_size: int = field(default=4, metadata={"help": "The narrowest bottleneck."})
    branches: list[str] = field(default_factory=lambda: list(BRANCHES), metadata={"help": "Of local, global, channel."})
    interaction: bool = field(default=True, metadata={"help": "Whether local and global branch gate each other."})
    norm: str = field(default="layer", metadata={"help": "layer, group or none."})
    init_weights: bool = field(default=True, metadata={"help": "Whether a fresh adapter changes nothing."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Other modules that are trained and saved along."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Numbers of the layers to adapt."})
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "Name of the list that the layers are in."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = METHOD
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # pyright: ignore[reportAttributeAccessIssue]  as peft's own configurations do
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)  # pyright: ignore[reportAttributeAccessIssue]
        if self.reduction < 1 or self.min_hidden_size < 1:
            raise ValueError(f"`reduction` and `min_hidden_size` must be at least 1, got {self.reduction} and {self.min_hidden_size}.")
        if not set(self.branches) & {"local", "global"} or not set(self.branches) <= set(BRANCHES):
            raise ValueError(f"`branches` must be of {', '.join(BRANCHES)}, with local or global among them; got {self.branches}.")
        if self.norm not in ("layer", "group", "none"):
            raise ValueError(f"`norm` must be 'layer', 'group' or 'none', got {self.norm!r}.")

    def hidden_size(self, in_channels: int) -> int:
        """Channels of the bottleneck beside a module with so many input channels."""
        return max(self.min_hidden_size, in_channels // self.reduction)
