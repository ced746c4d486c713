"""AdaptIR as a method of peft: `get_peft_model(model, AdaptIRConfig(...))`, or diffusers' `unet.add_adapter(AdaptIRConfig(...))`.

peft knows its own methods only (`register_peft_method` refuses other names), but it finds them in three dictionaries by their name.
Importing this package puts AdaptIR into them; without it, loading an AdaptIR adapter ends with `KeyError: 'ADAPTIR'`.
"""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from .config import METHOD, AdaptIRConfig
from .layer import AdaptIRBlock, AdaptIRLayer
from .model import AdaptIRModel, set_token_grid

__all__ = ["AdaptIRBlock", "AdaptIRConfig", "AdaptIRLayer", "AdaptIRModel", "set_token_grid"]

PEFT_TYPE_TO_CONFIG_MAPPING[METHOD] = AdaptIRConfig
PEFT_TYPE_TO_TUNER_MAPPING[METHOD] = AdaptIRModel
PEFT_TYPE_TO_PREFIX_MAPPING[METHOD] = AdaptIRModel.prefix
