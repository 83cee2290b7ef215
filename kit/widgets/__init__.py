"""What moves under the reader's hands: one file a widget, over one small base.

base.py              a panel of controls and a picture;   drawing.py  a panel whose picture grows
class_slider.py      pictures of a class;        completion.py       the rest of a picture
evidence_lens.py     a classification;           mixture_explorer.py a mixture of logistics
xray.py              what an output sees;        dashboard.py        a run while it trains
activations.py       what a sampler computes, and when: an animation, not a panel
compiled.py          draws the few pictures of a panel, as soon as may be, by the loop of   pixel_loop.py
"""

from .base import explore
from .class_slider import ClassSlider
from .completion import Completion
from .dashboard import TrainingDashboard
from .evidence_lens import EvidenceLens, show_evidence
from .mixture_explorer import MixtureExplorer
from .xray import CausalityXray

__all__ = [
    "CausalityXray",
    "ClassSlider",
    "Completion",
    "EvidenceLens",
    "MixtureExplorer",
    "TrainingDashboard",
    "explore",
    "show_evidence",
]
