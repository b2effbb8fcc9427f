"""Many processes on one machine or a cluster, through mpi4py and petsc4py, which nothing else imports.

`launch` finds out whether there are any, `ranks` shares independent tasks among them, `grid` cuts a voxel grid into
boxes, `plane_stress` solves for one large thin body, `installed` says what is there.
"""
