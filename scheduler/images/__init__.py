"""Images, whoever holds them: what a reference says, which image it names, and how an image's slots are laid out.

`contract` says what a source of images must do. A container engine is one (`scheduler.launchers.docker_images`), a
registry can be another.
"""
