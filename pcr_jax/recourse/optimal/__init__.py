"""The cheapest valid action, to a stated tolerance, whether or not the score has gradients.

Per user, in units of cost:

1. *Sweep.* At rising levels of cost, the score is evaluated at the points where fixed directions
   (signed axes and a lattice between them) and a path of steepest ascent meet that level, until
   one is favourable.
2. *Narrow.* Where the directions found favourable cross the boundary, to a quarter of the level.
3. *Climb.* Favourable regions thinner than the gaps between the directions: ascents on the score at
   costs just below, and well below, that of the cheapest crossing, along the directions that are
   best just below it; lower still, as often as an ascent becomes favourable.
4. *Refine.* From the cheapest move so far, descent on the cost within the favourable region: at a
   cost lower by a share delta, moves towards and away from every axis and, where the score has a
   gradient, towards the optimum of the linearised problem; delta shrinks where none is favourable.
5. *Scan.* Where the score has no slope, of which steps and saturated units leave none, ascents see
   nothing: pairs of features in many proportions at many costs below the cheapest found.
6. *Attack.* With a ball of perturbations (Eq. 2 of the paper), "favourable" means so for every
   perturbation of a working set, at first the centre. An attack on the refined action adds the
   perturbation that breaks it, and the sweep goes on from there, until the attack fails. These are
   cutting planes: every relaxed problem's optimum is a lower bound on the robust one.
7. *Crowd.* Whom a few perturbations do not settle, and whose score is flat at the solution, go on
   with fixed points that outline the ball. A move must first withstand the perturbations found so
   far; of those that do, the deepest are held against the outline.
8. *Push.* Whom that does not settle either, within `max_evaluations` or before the levels end, are
   given the cheapest of longer moves that withstands the same attack: it works, and may be dear.

A move counts as favourable from a margin of rounding on, relative to how much the score varies
around the user; a logit of exactly 0, which a score in steps can have, needs none.

What "favourable" means, and what an attack is, the problem's requirement says (see
`pcr_jax.recourse.requirements`): 6 to 8 are described for a ball. `moves` has the geometry,
`solver` the values of moves, `stages` the steps above, and `solve` the loop over them.
"""

from pcr_jax.recourse.optimal.settings import Settings
from pcr_jax.recourse.optimal.solve import Optimal

__all__ = ["Optimal", "Settings"]
