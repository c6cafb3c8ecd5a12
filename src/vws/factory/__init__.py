"""Makes appliances from recipes: `vws image build`.

The order of the work, each step in a module of its own:

    recipes.py     the recipe, what it builds on, and the files beside it
    apart.py       the build in namespaces of its own, which the kernel takes down with it, however it ends
    debian.py      packages: mmdebstrap makes the system; or memory.py: programs for a system in memory
    additions.py   files, users, services and commands, done inside the appliance (sandbox.py)
    disk.py        the tree as an ext4 file system in a qcow2, the same bytes for the same tree; loader.py makes it boot
    documents.py   the bill of materials and the provenance
    bundle.py      the bundle

build.py puts them together. Nothing of the build machine goes into the result: its names, times, users and order of
folders are left out where a file is made, not cleaned away afterwards.
"""
