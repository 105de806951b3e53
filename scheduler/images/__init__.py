"""Images, independent of who holds them: references, configurations, and the layouts of their slots.

`contract` says what a source of images must do. A container engine is one (`scheduler.launchers.docker_images`), a
registry can be another.
"""
