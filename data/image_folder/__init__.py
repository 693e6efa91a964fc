"""Images of the user's own: folders, names of classes, splits; decoded once into a pack."""

from data.image_folder.division import fix_test
from data.image_folder.load import class_names, load_image_folder, load_whole

__all__ = ["class_names", "fix_test", "load_image_folder", "load_whole"]
