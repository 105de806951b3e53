"""Sample images: imgproc:1 (ImageMagick), ocr:1 (Tesseract), cat:1 and ncat:1 for small tasks.

``python -m ops.images [NAME...]`` builds what is missing or changed, on the engine that DOCKER_HOST names.
"""
