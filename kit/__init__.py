"""Everything around the model: `python -m kit COMMAND`.

commands/                  one file a command; each calls what is below
runs, resume, train        a run on disk, how it goes on, and the loop that fills it;   sweep: a grid of runs
metrics, minutes           its line an epoch; how many epochs fit
platforms, distributed     laptop, Kaggle, Colab; several processes;    doctor: what is missing, and the cure
console                    how a command is typed here
download, fid, leaderboard, course, report, wandb_log                   data, scores, handing in, logging
widgets/, exercises/       what moves, and what is checked and kept, in the notebooks;   publish: Kaggle and Colab
"""
