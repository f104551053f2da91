"""The folder trees of public image data sets, as people have them after unpacking, and what their folders mean.

Each tree is cut down to a few classes and images, and keeps all else: the names, the nesting, and what lies beside the
images. Where it is known from is said above it: "TFDS" and "torchvision" are the loaders of these libraries, which
name the folders that they read; "Kaggle" is the archive as downloaded, by the paths in public notebooks and scripts.

Some trees have folders whose names differ only in case (`Train` beside `train`): on a file system that takes these
for one, they are merged when written.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class PublicTree:
    """A data set's tree, and the truth about it.

    Attributes:
        name: the data set, and which form of it.
        files: how many files there are of each path. `{}` in a path is the file's number, from 0. A path without it is
            one file.
        classes: by class, the number of labelled training images and of labelled test images. The validation split
            stands in for a test split that is missing or has no labels. Without splits, all images are training images.
            A copy of an image, a mask and a map count for nothing. None if folders alone do not say the class of an
            image, or leave open which of several folders is meant.
        note: what is special about it.
        copies: folders that are byte for byte the copy of another, which is among `files`.
    """

    name: str
    files: dict[str, int]
    classes: dict[str, tuple[int, int]] | None
    note: str
    copies: dict[str, str] = field(default_factory=dict)


def write_tree(tree: PublicTree, root: Path) -> None:
    """Make the files of `tree` in `root`. Each holds its own path, so none is like another except in `copies`."""
    for pattern, count in tree.files.items():
        for number in range(count):
            name = pattern.replace("{}", str(number))
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name, encoding="utf-8")
    for copy, original in tree.copies.items():
        shutil.copytree(root / original, root / copy, dirs_exist_ok=True)


TREES = [
    # Kaggle.
    PublicTree(
        name="Intel scenes (Kaggle puneet6060/intel-image-classification)",
        files={
            "seg_train/seg_train/buildings/{}.jpg": 6,
            "seg_train/seg_train/forest/{}.jpg": 7,
            "seg_train/seg_train/glacier/{}.jpg": 5,
            "seg_test/seg_test/buildings/2005{}.jpg": 4,
            "seg_test/seg_test/forest/2006{}.jpg": 5,
            "seg_test/seg_test/glacier/2007{}.jpg": 6,
            "seg_pred/seg_pred/{}.jpg": 5,
        },
        classes={"buildings": (6, 4), "forest": (7, 5), "glacier": (5, 6)},
        note="Each split lies in a folder of its own name, and seg_pred has images without labels.",
    ),
    # TFDS rock_paper_scissors: `^(rps|rps-test-set)/(rock|paper|scissors)/*.png`. People unpack both zips side by side.
    PublicTree(
        name="Rock Paper Scissors (Laurence Moroney, rps.zip and rps-test-set.zip)",
        files={
            "rps/paper/paper01-00{}.png": 6,
            "rps/rock/rock01-00{}.png": 5,
            "rps/scissors/scissors01-00{}.png": 7,
            "rps-test-set/paper/testpaper01-0{}.png": 4,
            "rps-test-set/rock/testrock01-0{}.png": 4,
            "rps-test-set/scissors/testscissors01-0{}.png": 5,
        },
        classes={"paper": (6, 4), "rock": (5, 4), "scissors": (7, 5)},
        note="The training folder has the data set's name, and only the test folder says what it is.",
    ),
    # Kaggle.
    PublicTree(
        name="Rock Paper Scissors (Kaggle sanikamal/rock-paper-scissors-dataset)",
        files={
            "Rock-Paper-Scissors/train/paper/paper01-00{}.png": 6,
            "Rock-Paper-Scissors/train/rock/rock01-00{}.png": 5,
            "Rock-Paper-Scissors/train/scissors/scissors01-00{}.png": 7,
            "Rock-Paper-Scissors/test/paper/testpaper01-0{}.png": 4,
            "Rock-Paper-Scissors/test/rock/testrock01-0{}.png": 4,
            "Rock-Paper-Scissors/test/scissors/testscissors01-0{}.png": 5,
            "Rock-Paper-Scissors/validation/paper{}.png": 3,
            "Rock-Paper-Scissors/validation/paper-hires{}.png": 2,
            "Rock-Paper-Scissors/validation/rock{}.png": 3,
            "Rock-Paper-Scissors/validation/scissors{}.png": 3,
        },
        classes={"paper": (6, 4), "rock": (5, 4), "scissors": (7, 5)},
        note="The validation folder has no class folders.",
    ),
    # TFDS horses_or_humans: both zips hold `horses/` and `humans/`; people unpack each into a folder of its name.
    PublicTree(
        name="Horses or Humans (Laurence Moroney, horse-or-human.zip and validation-horse-or-human.zip)",
        files={
            "horse-or-human/horses/horse01-{}.png": 6,
            "horse-or-human/humans/human01-0{}.png": 5,
            "validation-horse-or-human/horses/horse1-00{}.png": 4,
            "validation-horse-or-human/humans/valhuman01-0{}.png": 5,
        },
        classes={"horses": (6, 4), "humans": (5, 5)},
        note="The training folder has the data set's name, and the validation folder has it with a word before.",
    ),
    # Kaggle.
    PublicTree(
        name="ASL alphabet (Kaggle grassknoted/asl-alphabet)",
        files={
            "asl_alphabet_train/asl_alphabet_train/A/A{}.jpg": 6,
            "asl_alphabet_train/asl_alphabet_train/B/B{}.jpg": 5,
            "asl_alphabet_train/asl_alphabet_train/del/del{}.jpg": 4,
            "asl_alphabet_train/asl_alphabet_train/nothing/nothing{}.jpg": 5,
            "asl_alphabet_test/asl_alphabet_test/A_test.jpg": 1,
            "asl_alphabet_test/asl_alphabet_test/B_test.jpg": 1,
            "asl_alphabet_test/asl_alphabet_test/nothing_test.jpg": 1,
        },
        classes={"A": (6, 0), "B": (5, 0), "del": (4, 0), "nothing": (5, 0)},
        note="The test folder has one image of each class but 'del', and only the file names say which.",
    ),
    # Kaggle: train.zip and test1.zip of the competition, each unpacked where it lies.
    PublicTree(
        name="Dogs vs. Cats (Kaggle competition dogs-vs-cats)",
        files={
            "train/cat.{}.jpg": 6,
            "train/dog.{}.jpg": 6,
            "test1/{}.jpg": 5,
            "sampleSubmission.csv": 1,
        },
        classes=None,
        note="The classes are the beginnings of the file names, and the test images have no labels.",
    ),
    # Kaggle.
    PublicTree(
        name="Cat and Dog (Kaggle tongpython/cat-and-dog)",
        files={
            "training_set/training_set/cats/cat.{}.jpg": 6,
            "training_set/training_set/cats/_DS_Store": 1,
            "training_set/training_set/dogs/dog.{}.jpg": 7,
            "training_set/training_set/dogs/_DS_Store": 1,
            "test_set/test_set/cats/cat.400{}.jpg": 4,
            "test_set/test_set/cats/_DS_Store": 1,
            "test_set/test_set/dogs/dog.400{}.jpg": 5,
            "test_set/test_set/dogs/_DS_Store": 1,
        },
        classes={"cats": (6, 4), "dogs": (7, 5)},
        note="Each split lies in a folder of its own name.",
    ),
    # TFDS cats_vs_dogs: `^PetImages/(Cat|Dog)/\d+\.jpg$`; the archive of Microsoft has two more files at its top.
    PublicTree(
        name="Cats vs. Dogs (Microsoft, kagglecatsanddogs_5340.zip)",
        files={
            "PetImages/Cat/{}.jpg": 8,
            "PetImages/Cat/Thumbs.db": 1,
            "PetImages/Dog/{}.jpg": 7,
            "PetImages/Dog/Thumbs.db": 1,
            "readme[1].txt": 1,
            "CDLA-Permissive-2.0.pdf": 1,
        },
        classes={"Cat": (8, 0), "Dog": (7, 0)},
        note="Class folders, with Thumbs.db among the images.",
    ),
    # TensorFlow's and Keras' tutorials on transfer learning.
    PublicTree(
        name="Cats and Dogs, filtered (TensorFlow tutorial, cats_and_dogs_filtered.zip)",
        files={
            "cats_and_dogs_filtered/train/cats/cat.{}.jpg": 6,
            "cats_and_dogs_filtered/train/dogs/dog.{}.jpg": 6,
            "cats_and_dogs_filtered/validation/cats/cat.200{}.jpg": 4,
            "cats_and_dogs_filtered/validation/dogs/dog.200{}.jpg": 5,
            "cats_and_dogs_filtered/vectorize.py": 1,
        },
        classes={"cats": (6, 4), "dogs": (6, 5)},
        note="A training and a validation split.",
    ),
    # torchvision and TFDS oxford_iiit_pet: images/, annotations/{trimaps,xmls,list.txt,trainval.txt,test.txt}.
    PublicTree(
        name="Oxford-IIIT Pets (images.tar.gz and annotations.tar.gz)",
        files={
            "images/Abyssinian_{}.jpg": 6,
            "images/Abyssinian_100.mat": 1,
            "images/beagle_{}.jpg": 6,
            "annotations/README": 1,
            "annotations/list.txt": 1,
            "annotations/trainval.txt": 1,
            "annotations/test.txt": 1,
            "annotations/trimaps/Abyssinian_{}.png": 6,
            "annotations/trimaps/._Abyssinian_{}.png": 6,
            "annotations/trimaps/beagle_{}.png": 6,
            "annotations/trimaps/._beagle_{}.png": 6,
            "annotations/xmls/Abyssinian_{}.xml": 6,
            "annotations/xmls/beagle_{}.xml": 6,
        },
        classes=None,
        note="Images in one folder and masks in the other: the classes are the beginnings of the file names.",
    ),
    # torchvision Caltech101 (101_ObjectCategories, Annotations); TFDS caltech101.
    PublicTree(
        name="Caltech-101 (101_ObjectCategories.tar.gz and Annotations.tar)",
        files={
            "101_ObjectCategories/BACKGROUND_Google/image_000{}.jpg": 6,
            "101_ObjectCategories/BACKGROUND_Google/tmp": 1,
            "101_ObjectCategories/Faces/image_000{}.jpg": 5,
            "101_ObjectCategories/Faces_easy/image_000{}.jpg": 5,
            "101_ObjectCategories/accordion/image_000{}.jpg": 7,
            "Annotations/Faces_2/annotation_000{}.mat": 5,
            "Annotations/Faces_3/annotation_000{}.mat": 5,
            "Annotations/accordion/annotation_000{}.mat": 7,
        },
        classes={"BACKGROUND_Google": (6, 0), "Faces": (5, 0), "Faces_easy": (5, 0), "accordion": (7, 0)},
        note="The annotations beside the images have folders of the classes, without an image in them.",
    ),
    # torchvision Caltech101 unpacks caltech-101.zip and then the two archives in `caltech-101/`.
    PublicTree(
        name="Caltech-101 (caltech-101.zip of 2022)",
        files={
            "caltech-101/101_ObjectCategories.tar.gz": 1,
            "caltech-101/101_ObjectCategories/BACKGROUND_Google/image_000{}.jpg": 6,
            "caltech-101/101_ObjectCategories/accordion/image_000{}.jpg": 7,
            "caltech-101/101_ObjectCategories/airplanes/image_000{}.jpg": 5,
            "caltech-101/Annotations.tar": 1,
            "caltech-101/Annotations/Airplanes_Side_2/annotation_000{}.mat": 5,
            "caltech-101/Annotations/accordion/annotation_000{}.mat": 7,
            "caltech-101/show_annotation.m": 1,
            "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": 1,
            "__MACOSX/caltech-101/._Annotations.tar": 1,
            "__MACOSX/caltech-101/._show_annotation.m": 1,
        },
        classes={"BACKGROUND_Google": (6, 0), "accordion": (7, 0), "airplanes": (5, 0)},
        note="The archives lie beside what was unpacked from them, and the zip has a folder of a Mac's own files.",
    ),
    # torchvision Caltech256 (256_ObjectCategories/001.ak47/001_0001.jpg, other than *.jpg left out).
    PublicTree(
        name="Caltech-256 (256_ObjectCategories.tar)",
        files={
            "256_ObjectCategories/001.ak47/001_000{}.jpg": 6,
            "256_ObjectCategories/056.dog/056_000{}.jpg": 5,
            "256_ObjectCategories/198.spider/198_000{}.jpg": 5,
            "256_ObjectCategories/198.spider/RENAME2": 1,
            "256_ObjectCategories/257.clutter/257_000{}.jpg": 4,
        },
        classes={"001.ak47": (6, 0), "056.dog": (5, 0), "198.spider": (5, 0), "257.clutter": (4, 0)},
        note="Class folders with numbers in their names.",
    ),
    # TFDS caltech_birds (CUB_200_2011/images.txt, train_test_split.txt, segmentations/*/*.png); the archive's README.
    PublicTree(
        name="Caltech-UCSD Birds 200-2011 (CUB_200_2011.tgz and segmentations.tgz)",
        files={
            "CUB_200_2011/README": 1,
            "CUB_200_2011/attributes/class_attribute_labels_continuous.txt": 1,
            "CUB_200_2011/attributes/image_attribute_labels.txt": 1,
            "CUB_200_2011/bounding_boxes.txt": 1,
            "CUB_200_2011/classes.txt": 1,
            "CUB_200_2011/image_class_labels.txt": 1,
            "CUB_200_2011/images.txt": 1,
            "CUB_200_2011/images/001.Black_footed_Albatross/Black_Footed_Albatross_000{}_79611.jpg": 6,
            "CUB_200_2011/images/002.Laysan_Albatross/Laysan_Albatross_000{}_545.jpg": 5,
            "CUB_200_2011/parts/part_locs.txt": 1,
            "CUB_200_2011/parts/parts.txt": 1,
            "CUB_200_2011/train_test_split.txt": 1,
            "attributes.txt": 1,
            "segmentations/001.Black_footed_Albatross/Black_Footed_Albatross_000{}_79611.png": 6,
            "segmentations/002.Laysan_Albatross/Laysan_Albatross_000{}_545.png": 5,
        },
        classes={"001.Black_footed_Albatross": (6, 0), "002.Laysan_Albatross": (5, 0)},
        note="A second tree has the same class folders with masks, and a text file says the split.",
    ),
    # TFDS stanford_dogs: images.tar, annotation.tar, lists.tar.
    PublicTree(
        name="Stanford Dogs (images.tar, annotation.tar and lists.tar)",
        files={
            "Images/n02085620-Chihuahua/n02085620_{}.jpg": 6,
            "Images/n02085782-Japanese_spaniel/n02085782_{}.jpg": 5,
            "Annotation/n02085620-Chihuahua/n02085620_{}": 6,
            "Annotation/n02085782-Japanese_spaniel/n02085782_{}": 5,
            "file_list.mat": 1,
            "train_list.mat": 1,
            "test_list.mat": 1,
        },
        classes={"n02085620-Chihuahua": (6, 0), "n02085782-Japanese_spaniel": (5, 0)},
        note="The annotations have the same class folders, and files without a suffix.",
    ),
    # Kaggle: the same data, each part in a folder more.
    PublicTree(
        name="Stanford Dogs (Kaggle jessicali9530/stanford-dogs-dataset)",
        files={
            "images/Images/n02085620-Chihuahua/n02085620_{}.jpg": 6,
            "images/Images/n02085782-Japanese_spaniel/n02085782_{}.jpg": 5,
            "annotations/Annotation/n02085620-Chihuahua/n02085620_{}": 6,
            "annotations/Annotation/n02085782-Japanese_spaniel/n02085782_{}": 5,
        },
        classes={"n02085620-Chihuahua": (6, 0), "n02085782-Japanese_spaniel": (5, 0)},
        note="Images and annotations are nested once more.",
    ),
    # torchvision StanfordCars: devkit/cars_train_annos.mat, cars_train, cars_test, cars_test_annos_withlabels.mat.
    PublicTree(
        name="Stanford Cars (cars_train.tgz, cars_test.tgz and car_devkit.tgz)",
        files={
            "cars_train/0000{}.jpg": 8,
            "cars_test/0000{}.jpg": 8,
            "cars_test_annos_withlabels.mat": 1,
            "devkit/README.txt": 1,
            "devkit/cars_meta.mat": 1,
            "devkit/cars_test_annos.mat": 1,
            "devkit/cars_train_annos.mat": 1,
            "devkit/eval_train.m": 1,
            "devkit/train_perfect_preds.txt": 1,
        },
        classes=None,
        note="Two splits without class folders: the labels are in .mat files.",
    ),
    # Kaggle.
    PublicTree(
        name="Stanford Cars by classes (Kaggle jutrera/stanford-car-dataset-by-classes-folder)",
        files={
            "car_data/car_data/train/AM General Hummer SUV 2000/0004{}.jpg": 6,
            "car_data/car_data/train/Acura Integra Type R 2001/0019{}.jpg": 5,
            "car_data/car_data/test/AM General Hummer SUV 2000/0007{}.jpg": 4,
            "car_data/car_data/test/Acura Integra Type R 2001/0012{}.jpg": 5,
            "anno_train.csv": 1,
            "anno_test.csv": 1,
            "names.csv": 1,
        },
        classes={"AM General Hummer SUV 2000": (6, 4), "Acura Integra Type R 2001": (5, 5)},
        note="The splits lie two folders deep.",
    ),
    # Stanford CS231n's archive.
    PublicTree(
        name="Tiny ImageNet (tiny-imagenet-200.zip)",
        files={
            "tiny-imagenet-200/train/n01443537/images/n01443537_{}.JPEG": 6,
            "tiny-imagenet-200/train/n01443537/n01443537_boxes.txt": 1,
            "tiny-imagenet-200/train/n01629819/images/n01629819_{}.JPEG": 5,
            "tiny-imagenet-200/train/n01629819/n01629819_boxes.txt": 1,
            "tiny-imagenet-200/val/images/val_{}.JPEG": 6,
            "tiny-imagenet-200/val/val_annotations.txt": 1,
            "tiny-imagenet-200/test/images/test_{}.JPEG": 6,
            "tiny-imagenet-200/wnids.txt": 1,
            "tiny-imagenet-200/words.txt": 1,
        },
        classes={"n01443537": (6, 0), "n01629819": (5, 0)},
        note="Each class has a folder 'images', and so have the two splits whose labels no folder says.",
    ),
    # Kaggle's imagenet-object-localization-challenge, as the organizers have it.
    PublicTree(
        name="ImageNet (ILSVRC CLS-LOC, imagenet_object_localization_patched2019.tar.gz)",
        files={
            "ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_100{}.JPEG": 6,
            "ILSVRC/Data/CLS-LOC/train/n01443537/n01443537_100{}.JPEG": 5,
            "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_0000000{}.JPEG": 6,
            "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_0000000{}.JPEG": 6,
            "ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_100{}.xml": 6,
            "ILSVRC/Annotations/CLS-LOC/train/n01443537/n01443537_100{}.xml": 5,
            "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_0000000{}.xml": 6,
            "ILSVRC/ImageSets/CLS-LOC/train_cls.txt": 1,
            "ILSVRC/ImageSets/CLS-LOC/train_loc.txt": 1,
            "ILSVRC/ImageSets/CLS-LOC/val.txt": 1,
            "ILSVRC/ImageSets/CLS-LOC/test.txt": 1,
            "LOC_sample_submission.csv": 1,
            "LOC_synset_mapping.txt": 1,
            "LOC_train_solution.csv": 1,
            "LOC_val_solution.csv": 1,
        },
        classes={"n01440764": (6, 0), "n01443537": (5, 0)},
        note="Only the training split has class folders, and annotations have the same folders of splits and classes.",
    ),
    # TFDS imagenette: imagenette2/{train,val}/CLASS/*.JPEG; the CSV file is fastai's.
    PublicTree(
        name="Imagenette (fastai, imagenette2.tgz)",
        files={
            "imagenette2/train/n01440764/n01440764_1002{}.JPEG": 6,
            "imagenette2/train/n02102040/n02102040_100{}.JPEG": 5,
            "imagenette2/val/n01440764/n01440764_{}0.JPEG": 4,
            "imagenette2/val/n02102040/n02102040_{}1.JPEG": 5,
            "imagenette2/noisy_imagenette.csv": 1,
        },
        classes={"n01440764": (6, 4), "n02102040": (5, 5)},
        note="A training and a validation split.",
    ),
    # Kaggle: notebooks remove `chest_xray/chest_xray` and `chest_xray/__MACOSX` first.
    PublicTree(
        name="Chest X-rays (Kaggle paultimothymooney/chest-xray-pneumonia)",
        files={
            "chest_xray/train/NORMAL/IM-0115-000{}.jpeg": 6,
            "chest_xray/train/PNEUMONIA/person1_bacteria_{}.jpeg": 7,
            "chest_xray/test/NORMAL/IM-0001-000{}.jpeg": 4,
            "chest_xray/test/PNEUMONIA/person100_bacteria_47{}.jpeg": 5,
            "chest_xray/val/NORMAL/NORMAL2-IM-1427-000{}.jpeg": 4,
            "chest_xray/val/PNEUMONIA/person1946_bacteria_487{}.jpeg": 4,
            "chest_xray/chest_xray/.DS_Store": 1,
            "chest_xray/__MACOSX/._chest_xray": 1,
            "chest_xray/__MACOSX/chest_xray/train/NORMAL/._IM-0115-000{}.jpeg": 6,
            "chest_xray/__MACOSX/chest_xray/train/PNEUMONIA/._person1_bacteria_{}.jpeg": 7,
            "chest_xray/__MACOSX/chest_xray/test/NORMAL/._IM-0001-000{}.jpeg": 4,
            "chest_xray/__MACOSX/chest_xray/test/PNEUMONIA/._person100_bacteria_47{}.jpeg": 5,
        },
        classes={"NORMAL": (6, 4), "PNEUMONIA": (7, 5)},
        note="A copy of the whole tree lies in it, and a Mac's own files that are named like images.",
        copies={
            "chest_xray/chest_xray/train": "chest_xray/train",
            "chest_xray/chest_xray/test": "chest_xray/test",
            "chest_xray/chest_xray/val": "chest_xray/val",
        },
    ),
    # Kaggle, version 5.
    PublicTree(
        name="COVID-19 Radiography (Kaggle tawsifurrahman/covid19-radiography-database)",
        files={
            "COVID-19_Radiography_Dataset/COVID/images/COVID-{}.png": 6,
            "COVID-19_Radiography_Dataset/COVID/masks/COVID-{}.png": 6,
            "COVID-19_Radiography_Dataset/COVID.metadata.xlsx": 1,
            "COVID-19_Radiography_Dataset/Lung_Opacity/images/Lung_Opacity-{}.png": 5,
            "COVID-19_Radiography_Dataset/Lung_Opacity/masks/Lung_Opacity-{}.png": 5,
            "COVID-19_Radiography_Dataset/Lung_Opacity.metadata.xlsx": 1,
            "COVID-19_Radiography_Dataset/Normal/images/Normal-{}.png": 7,
            "COVID-19_Radiography_Dataset/Normal/masks/Normal-{}.png": 7,
            "COVID-19_Radiography_Dataset/Normal.metadata.xlsx": 1,
            "COVID-19_Radiography_Dataset/Viral Pneumonia/images/Viral Pneumonia-{}.png": 4,
            "COVID-19_Radiography_Dataset/Viral Pneumonia/masks/Viral Pneumonia-{}.png": 4,
            "COVID-19_Radiography_Dataset/Viral Pneumonia.metadata.xlsx": 1,
            "COVID-19_Radiography_Dataset/README.md.txt": 1,
        },
        classes={"COVID": (6, 0), "Lung_Opacity": (5, 0), "Normal": (7, 0), "Viral Pneumonia": (4, 0)},
        note="Each class has a folder of images and one of masks, with the same file names.",
    ),
    # Kaggle; the same zip is in Dicoding's course, where `rps-cv-images` is deleted first.
    PublicTree(
        name="Rock Paper Scissors (Kaggle drgfreeman/rockpaperscissors)",
        files={
            "paper/0a3UtNzl5Ll3sq8K{}.png": 6,
            "rock/0bioIVY5MGdFbFkz{}.png": 5,
            "scissors/0CSaM2vL2cWX6Cay{}.png": 7,
            "README_rpc-cv-images.txt": 1,
            "rps-cv-images/README_rpc-cv-images.txt": 1,
        },
        classes={"paper": (6, 0), "rock": (5, 0), "scissors": (7, 0)},
        note="A folder beside the classes has a copy of all classes.",
        copies={
            "rps-cv-images/paper": "paper",
            "rps-cv-images/rock": "rock",
            "rps-cv-images/scissors": "scissors",
        },
    ),
    # torchvision Flowers102: flowers-102/{jpg/image_00001.jpg,imagelabels.mat,setid.mat}; segmim of the authors.
    PublicTree(
        name="Oxford 102 Flowers (102flowers.tgz and 102segmentations.tgz)",
        files={
            "jpg/image_0000{}.jpg": 8,
            "segmim/segmim_0000{}.jpg": 8,
            "imagelabels.mat": 1,
            "setid.mat": 1,
        },
        classes=None,
        note="Images beside segmented images: the labels are in a .mat file.",
    ),
    # TensorFlow's tutorials; TFDS tf_flowers.
    PublicTree(
        name="TensorFlow flowers (flower_photos.tgz)",
        files={
            "flower_photos/LICENSE.txt": 1,
            "flower_photos/daisy/10008057{}_f52e8ee070_n.jpg": 6,
            "flower_photos/dandelion/1008566{}_c89b3b8a8d_n.jpg": 7,
            "flower_photos/tulips/1009434{}_c584ecdb55_m.jpg": 5,
        },
        classes={"daisy": (6, 0), "dandelion": (7, 0), "tulips": (5, 0)},
        note="Class folders, with a licence beside them.",
    ),
    # torchvision and TFDS food101: food-101/{images/CLASS/*.jpg,meta/*.json}.
    PublicTree(
        name="Food-101 (food-101.tar.gz)",
        files={
            "food-101/README.txt": 1,
            "food-101/license_agreement.txt": 1,
            "food-101/images/apple_pie/100564{}.jpg": 7,
            "food-101/images/baby_back_ribs/100529{}.jpg": 6,
            "food-101/meta/classes.txt": 1,
            "food-101/meta/labels.txt": 1,
            "food-101/meta/test.json": 1,
            "food-101/meta/test.txt": 1,
            "food-101/meta/train.json": 1,
            "food-101/meta/train.txt": 1,
        },
        classes={"apple_pie": (7, 0), "baby_back_ribs": (6, 0)},
        note="All classes lie in 'images', and lists say the split.",
    ),
    # torchvision EuroSAT: eurosat/2750/CLASS.
    PublicTree(
        name="EuroSAT (EuroSAT.zip, RGB)",
        files={
            "2750/AnnualCrop/AnnualCrop_{}.jpg": 6,
            "2750/Forest/Forest_{}.jpg": 5,
            "2750/SeaLake/SeaLake_{}.jpg": 7,
        },
        classes={"AnnualCrop": (6, 0), "Forest": (5, 0), "SeaLake": (7, 0)},
        note="One folder above the classes, which is a number.",
    ),
    # Kaggle.
    PublicTree(
        name="EuroSAT (Kaggle apollo2506/eurosat-dataset)",
        files={
            "EuroSAT/AnnualCrop/AnnualCrop_{}.jpg": 6,
            "EuroSAT/Forest/Forest_{}.jpg": 5,
            "EuroSAT/label_map.json": 1,
            "EuroSAT/test.csv": 1,
            "EuroSAT/train.csv": 1,
            "EuroSAT/validation.csv": 1,
            "EuroSATallBands/AnnualCrop/AnnualCrop_{}.tif": 6,
            "EuroSATallBands/Forest/Forest_{}.tif": 5,
            "EuroSATallBands/label_map.json": 1,
            "EuroSATallBands/test.csv": 1,
            "EuroSATallBands/train.csv": 1,
            "EuroSATallBands/validation.csv": 1,
        },
        classes=None,
        note="The same places twice, in colour and in 13 bands, under the same class folders: one is to be chosen.",
    ),
    # TFDS uc_merced: UCMerced_LandUse/Images/CLASS/*.tif.
    PublicTree(
        name="UC Merced Land Use (UCMerced_LandUse.zip)",
        files={
            "UCMerced_LandUse/Images/agricultural/agricultural0{}.tif": 6,
            "UCMerced_LandUse/Images/airplane/airplane0{}.tif": 5,
            "UCMerced_LandUse/readme.txt": 1,
        },
        classes={"agricultural": (6, 0), "airplane": (5, 0)},
        note="Class folders in 'Images', of TIFF files.",
    ),
    # TFDS resisc45, manual download: NWPU-RESISC45/CLASS/*.jpg.
    PublicTree(
        name="NWPU-RESISC45 (NWPU-RESISC45.rar)",
        files={
            "NWPU-RESISC45/airplane/airplane_00{}.jpg": 6,
            "NWPU-RESISC45/airport/airport_00{}.jpg": 5,
            "NWPU-RESISC45/baseball_diamond/baseball_diamond_00{}.jpg": 7,
        },
        classes={"airplane": (6, 0), "airport": (5, 0), "baseball_diamond": (7, 0)},
        note="Class folders.",
    ),
    # The authors' archive.
    PublicTree(
        name="Aerial Image Dataset (AID.zip)",
        files={
            "AID/Airport/airport_{}.jpg": 6,
            "AID/BareLand/bareland_{}.jpg": 5,
            "AID/Viaduct/viaduct_{}.jpg": 7,
        },
        classes={"Airport": (6, 0), "BareLand": (5, 0), "Viaduct": (7, 0)},
        note="Class folders.",
    ),
    # Kaggle: notebooks read `PlantVillage` as well as `plantvillage/PlantVillage`.
    PublicTree(
        name="PlantVillage (Kaggle emmarex/plantdisease)",
        files={
            "PlantVillage/Pepper__bell___Bacterial_spot/0022d6b7___JR_B.Spot 896{}.JPG": 6,
            "PlantVillage/Potato___healthy/00fc2ee5___RS_HL 186{}.JPG": 5,
            "PlantVillage/Tomato__Tomato_YellowLeaf__Curl_Virus/001b5f38___UF.GRC_YLCV_Lab 021{}.JPG": 7,
        },
        classes={
            "Pepper__bell___Bacterial_spot": (6, 0),
            "Potato___healthy": (5, 0),
            "Tomato__Tomato_YellowLeaf__Curl_Virus": (7, 0),
        },
        note="A copy of the whole tree lies beside it, in a folder whose name differs in case.",
        copies={"plantvillage/PlantVillage": "PlantVillage"},
    ),
    # Kaggle; the same three folders are in the authors' repository, under `raw/`.
    PublicTree(
        name="PlantVillage in three renderings (Kaggle abdallahalidev/plantvillage-dataset)",
        files={
            "plantvillage dataset/color/Apple___Apple_scab/00075aa8___FREC_Scab 333{}.JPG": 6,
            "plantvillage dataset/color/Apple___healthy/0055dd26___RS_HL 566{}.JPG": 5,
            "plantvillage dataset/grayscale/Apple___Apple_scab/00075aa8___FREC_Scab 333{}.JPG": 6,
            "plantvillage dataset/grayscale/Apple___healthy/0055dd26___RS_HL 566{}.JPG": 5,
            "plantvillage dataset/segmented/Apple___Apple_scab/00075aa8___FREC_Scab 333{}_final_masked.jpg": 6,
            "plantvillage dataset/segmented/Apple___healthy/0055dd26___RS_HL 566{}_final_masked.jpg": 5,
        },
        classes=None,
        note="The same leaves three times, under the same class folders: one rendering is to be chosen.",
    ),
    # Kaggle: the copy is in `new plant diseases dataset(augmented)`.
    PublicTree(
        name="New Plant Diseases (Kaggle vipoooool/new-plant-diseases-dataset)",
        files={
            "New Plant Diseases Dataset(Augmented)/New Plant Diseases Dataset(Augmented)/train/"
            "Apple___Apple_scab/00075aa8___FREC_Scab 333{}.JPG": 6,
            "New Plant Diseases Dataset(Augmented)/New Plant Diseases Dataset(Augmented)/train/"
            "Apple___healthy/0055dd26___RS_HL 566{}.JPG": 5,
            "New Plant Diseases Dataset(Augmented)/New Plant Diseases Dataset(Augmented)/valid/"
            "Apple___Apple_scab/00075aa8___FREC_Scab 334{}.JPG": 4,
            "New Plant Diseases Dataset(Augmented)/New Plant Diseases Dataset(Augmented)/valid/"
            "Apple___healthy/0055dd26___RS_HL 567{}.JPG": 4,
            "test/test/AppleCedarRust{}.JPG": 3,
            "test/test/AppleScab{}.JPG": 3,
        },
        classes={"Apple___Apple_scab": (6, 4), "Apple___healthy": (5, 4)},
        note="The splits lie in two folders of one name, with a copy under a name in other case; test is flat.",
        copies={"new plant diseases dataset(augmented)": "New Plant Diseases Dataset(Augmented)"},
    ),
    # Kaggle: notebooks read `Train` as well as `train`.
    PublicTree(
        name="German traffic signs (Kaggle meowmeowmeowmeowmeow/gtsrb-german-traffic-sign)",
        files={
            "Train/0/00000_00000_0000{}.png": 6,
            "Train/1/00001_00000_0000{}.png": 5,
            "Train/42/00042_00000_0000{}.png": 7,
            "Test/0000{}.png": 6,
            "Test/GT-00000.csv": 1,
            "Meta/{}.png": 3,
            "Meta.csv": 1,
            "Test.csv": 1,
            "Train.csv": 1,
        },
        classes={"0": (6, 0), "1": (5, 0), "42": (7, 0)},
        note="The test images have no folders, Meta has one drawing a class, and copies lie under names in lower case.",
        copies={"train": "Train", "test": "Test", "meta": "Meta"},
    ),
    # The authors' archives GTSRB_Final_Training_Images.zip and GTSRB_Final_Test_Images.zip; torchvision GTSRB.
    PublicTree(
        name="German traffic signs (the authors' archives)",
        files={
            "GTSRB/Readme-Images.txt": 1,
            "GTSRB/Readme-Images-Final-test.txt": 1,
            "GTSRB/Final_Training/Images/00000/00000_0000{}.ppm": 6,
            "GTSRB/Final_Training/Images/00000/GT-00000.csv": 1,
            "GTSRB/Final_Training/Images/00001/00000_0000{}.ppm": 5,
            "GTSRB/Final_Training/Images/00001/GT-00001.csv": 1,
            "GTSRB/Final_Test/Images/0000{}.ppm": 6,
            "GTSRB/Final_Test/Images/GT-final_test.test.csv": 1,
        },
        classes={"00000": (6, 0), "00001": (5, 0)},
        note="The images are .ppm files, and the test images have no class folders.",
    ),
    # fast.ai's archive.
    PublicTree(
        name="CIFAR-10 as PNG files (fastai, cifar10.tgz)",
        files={
            "cifar10/labels.txt": 1,
            "cifar10/train/airplane/1000{}_airplane.png": 6,
            "cifar10/train/automobile/1001{}_automobile.png": 5,
            "cifar10/test/airplane/100{}_airplane.png": 4,
            "cifar10/test/automobile/101{}_automobile.png": 5,
        },
        classes={"airplane": (6, 4), "automobile": (5, 5)},
        note="A training and a test split.",
    ),
    # Kaggle: train.7z and test.7z, each unpacked where it lies.
    PublicTree(
        name="CIFAR-10 (Kaggle competition cifar-10)",
        files={
            "train/{}.png": 8,
            "test/{}.png": 8,
            "trainLabels.csv": 1,
            "sampleSubmission.csv": 1,
        },
        classes=None,
        note="The labels are in a CSV file.",
    ),
    # Kaggle.
    PublicTree(
        name="MNIST as JPG files (Kaggle scolianni/mnistasjpg)",
        files={
            "trainingSet/trainingSet/0/img_{}.jpg": 6,
            "trainingSet/trainingSet/1/img_1{}.jpg": 7,
            "trainingSet/trainingSet/9/img_2{}.jpg": 5,
            "trainingSample/trainingSample/0/img_3{}.jpg": 4,
            "trainingSample/trainingSample/1/img_4{}.jpg": 4,
            "trainingSample/trainingSample/9/img_5{}.jpg": 4,
            "testSet/testSet/img_{}.jpg": 6,
        },
        classes={"0": (6, 0), "1": (7, 0), "9": (5, 0)},
        note="A smaller training set lies beside the training set, and the test images have no labels.",
    ),
    # Kaggle moltean/fruits, as its readme describes it.
    PublicTree(
        name="Fruits-360 (Kaggle moltean/fruits)",
        files={
            "fruits-360_dataset/fruits-360/LICENSE": 1,
            "fruits-360_dataset/fruits-360/readme.md": 1,
            "fruits-360_dataset/fruits-360/Training/Apple Braeburn/{}_100.jpg": 6,
            "fruits-360_dataset/fruits-360/Training/Banana/{}_100.jpg": 5,
            "fruits-360_dataset/fruits-360/Test/Apple Braeburn/32{}_100.jpg": 4,
            "fruits-360_dataset/fruits-360/Test/Banana/33{}_100.jpg": 5,
            "fruits-360_dataset/fruits-360/test-multiple_fruits/cherries_wax{}.jpg": 4,
            "fruits-360_dataset/fruits-360/papers/fruit_recognition.pdf": 1,
        },
        classes={"Apple Braeburn": (6, 4), "Banana": (5, 5)},
        note="A second test folder has images of many fruits, in no class folder.",
    ),
    # Kaggle.
    PublicTree(
        name="Animals-10 (Kaggle alessiocorrado99/animals10)",
        files={
            "raw-img/cane/OIP--2z_zAuTMzgYM_KynUl9CQHaE{}.jpeg": 6,
            "raw-img/cavallo/OIP---A27bIBcUgX1qkbpZOPswHaF{}.jpeg": 5,
            "raw-img/gatto/{}.jpeg": 7,
            "translate.py": 1,
        },
        classes={"cane": (6, 0), "cavallo": (5, 0), "gatto": (7, 0)},
        note="One folder above the classes, named for what it holds.",
    ),
    # Kaggle.
    PublicTree(
        name="10 Monkey Species (Kaggle slothkong/10-monkey-species)",
        files={
            "training/training/n0/n001{}.jpg": 6,
            "training/training/n1/n101{}.jpg": 5,
            "validation/validation/n0/n00{}.jpg": 4,
            "validation/validation/n1/n10{}.jpg": 5,
            "monkey_labels.txt": 1,
        },
        classes={"n0": (6, 4), "n1": (5, 5)},
        note="Each split lies in a folder of its own name.",
    ),
    # Kaggle.
    PublicTree(
        name="Blood cells (Kaggle paultimothymooney/blood-cells)",
        files={
            "dataset-master/dataset-master/Annotations/BloodImage_0000{}.xml": 5,
            "dataset-master/dataset-master/JPEGImages/BloodImage_0000{}.jpg": 5,
            "dataset-master/dataset-master/labels.csv": 1,
            "dataset2-master/dataset2-master/images/TRAIN/EOSINOPHIL/_0_{}.jpeg": 6,
            "dataset2-master/dataset2-master/images/TRAIN/LYMPHOCYTE/_1_{}.jpeg": 7,
            "dataset2-master/dataset2-master/images/TEST/EOSINOPHIL/_2_{}.jpeg": 4,
            "dataset2-master/dataset2-master/images/TEST/LYMPHOCYTE/_3_{}.jpeg": 5,
            "dataset2-master/dataset2-master/images/TEST_SIMPLE/EOSINOPHIL/_4_{}.jpeg": 4,
            "dataset2-master/dataset2-master/images/TEST_SIMPLE/LYMPHOCYTE/_5_{}.jpeg": 4,
            "dataset2-master/dataset2-master/labels.csv": 1,
        },
        classes={"EOSINOPHIL": (6, 4), "LYMPHOCYTE": (7, 5)},
        note="There are two test folders, TEST and TEST_SIMPLE, and another data set beside them.",
    ),
    # Kaggle.
    PublicTree(
        name="Brain tumour MRI (Kaggle masoudnickparvar/brain-tumor-mri-dataset)",
        files={
            "Training/glioma/Tr-gl_001{}.jpg": 6,
            "Training/notumor/Tr-no_001{}.jpg": 5,
            "Testing/glioma/Te-gl_001{}.jpg": 4,
            "Testing/notumor/Te-no_001{}.jpg": 5,
        },
        classes={"glioma": (6, 4), "notumor": (5, 5)},
        note="A training and a test split.",
    ),
    # Kaggle.
    PublicTree(
        name="Brain MRI, yes and no (Kaggle navoneel/brain-mri-images-for-brain-tumor-detection)",
        files={
            "no/{} no.jpeg": 6,
            "yes/Y{}.jpg": 7,
        },
        classes={"no": (6, 0), "yes": (7, 0)},
        note="A folder beside the classes has a copy of all classes.",
        copies={"brain_tumor_dataset/no": "no", "brain_tumor_dataset/yes": "yes"},
    ),
    # Kaggle.
    PublicTree(
        name="Skin cancer (Kaggle nodoubttome/skin-cancer9-classesisic)",
        files={
            "Skin cancer ISIC The International Skin Imaging Collaboration/Train/"
            "actinic keratosis/ISIC_002578{}.jpg": 6,
            "Skin cancer ISIC The International Skin Imaging Collaboration/Train/nevus/ISIC_000000{}.jpg": 5,
            "Skin cancer ISIC The International Skin Imaging Collaboration/Test/actinic keratosis/ISIC_001051{}.jpg": 4,
            "Skin cancer ISIC The International Skin Imaging Collaboration/Test/nevus/ISIC_000001{}.jpg": 4,
        },
        classes={"actinic keratosis": (6, 4), "nevus": (5, 4)},
        note="A training and a test split, with blanks in all names above and below.",
    ),
    # Kaggle; TFDS malaria reads cell_images/{Parasitized,Uninfected}/*.png of the authors' archive.
    PublicTree(
        name="Malaria cells (Kaggle iarunava/cell-images-for-detecting-malaria)",
        files={
            "cell_images/Parasitized/C100P61ThinF_IMG_20150918_144104_cell_16{}.png": 6,
            "cell_images/Parasitized/Thumbs.db": 1,
            "cell_images/Uninfected/C100P61ThinF_IMG_20150918_144104_cell_12{}.png": 7,
            "cell_images/Uninfected/Thumbs.db": 1,
        },
        classes={"Parasitized": (6, 0), "Uninfected": (7, 0)},
        note="A copy of the whole tree lies in a folder of the same name within it.",
        copies={
            "cell_images/cell_images/Parasitized": "cell_images/Parasitized",
            "cell_images/cell_images/Uninfected": "cell_images/Uninfected",
        },
    ),
    # The authors' archive with folders for training: places365standard_easyformat.tar.
    PublicTree(
        name="Places365 (places365standard_easyformat.tar)",
        files={
            "places365_standard/train/airfield/0000000{}.jpg": 6,
            "places365_standard/train/arch/0000000{}.jpg": 5,
            "places365_standard/train.txt": 1,
            "places365_standard/val/airfield/Places365_val_0000043{}.jpg": 4,
            "places365_standard/val/arch/Places365_val_0000044{}.jpg": 5,
            "places365_standard/val.txt": 1,
        },
        classes={"airfield": (6, 4), "arch": (5, 5)},
        note="A training and a validation split, and lists of the same names.",
    ),
    # torchvision Places365: data_256/a/airfield/*.jpg, val_256/*.jpg and places365_val.txt.
    PublicTree(
        name="Places365, small (train_256_places365standard.tar, val_256.tar and test_256.tar)",
        files={
            "data_256/a/airfield/0000000{}.jpg": 6,
            "data_256/a/apartment_building/outdoor/0000000{}.jpg": 5,
            "data_256/b/badlands/0000000{}.jpg": 7,
            "val_256/Places365_val_0000000{}.jpg": 6,
            "test_256/Places365_test_0000000{}.jpg": 6,
            "categories_places365.txt": 1,
            "places365_train_standard.txt": 1,
            "places365_val.txt": 1,
            "places365_test.txt": 1,
        },
        classes={"airfield": (6, 0), "apartment_building/outdoor": (5, 0), "badlands": (7, 0)},
        note="A folder for each first letter, some classes are two folders deep, and two splits are flat.",
    ),
    # torchvision SUN397: SUN397/ClassName.txt; TFDS sun397: SUN397/c/church/outdoor/sun_bhenjvsvrtumjuri.jpg.
    PublicTree(
        name="SUN397 (SUN397.tar.gz and Partitions.zip)",
        files={
            "SUN397/ClassName.txt": 1,
            "SUN397/a/abbey/sun_aaalbzqrimafwbi{}.jpg": 6,
            "SUN397/c/church/indoor/sun_aadqdkqaslqxqwp{}.jpg": 5,
            "SUN397/c/church/outdoor/sun_bhenjvsvrtumjur{}.jpg": 7,
            "SUN397/t/track/outdoor/sun_aophkoiosslinih{}.jpg": 4,
            "Partitions/ClassName.txt": 1,
            "Partitions/Testing_01.txt": 1,
            "Partitions/Training_01.txt": 1,
        },
        classes={"abbey": (6, 0), "church/indoor": (5, 0), "church/outdoor": (7, 0), "track/outdoor": (4, 0)},
        note="A folder for each first letter, and some classes are two folders deep.",
    ),
    # Kaggle.
    PublicTree(
        name="FER-2013 (Kaggle msambare/fer2013)",
        files={
            "train/angry/Training_390{}.jpg": 6,
            "train/happy/Training_100{}.jpg": 7,
            "test/angry/PrivateTest_1013136{}.jpg": 4,
            "test/happy/PublicTest_1002{}.jpg": 5,
        },
        classes={"angry": (6, 4), "happy": (7, 5)},
        note="A training and a test split.",
    ),
    # The authors' two zips, unpacked side by side.
    PublicTree(
        name="Kather's colorectal tissue (NCT-CRC-HE-100K.zip and CRC-VAL-HE-7K.zip)",
        files={
            "NCT-CRC-HE-100K/ADI/ADI-AAAFLCL{}.tif": 6,
            "NCT-CRC-HE-100K/TUM/TUM-AAACEFR{}.tif": 5,
            "CRC-VAL-HE-7K/ADI/ADI-TCGA-AAICEQF{}.tif": 4,
            "CRC-VAL-HE-7K/TUM/TUM-TCGA-AAIWLTN{}.tif": 5,
        },
        classes={"ADI": (6, 4), "TUM": (5, 5)},
        note="The training folder has the data set's name, and the other has VAL in the middle of its name.",
    ),
    # TFDS colorectal_histology: Kather_texture_2016_image_tiles_5000/01_TUMOR; Kaggle nests it once more.
    PublicTree(
        name="Colorectal histology (Kaggle kmader/colorectal-histology-mnist)",
        files={
            "Kather_texture_2016_image_tiles_5000/Kather_texture_2016_image_tiles_5000/01_TUMOR/"
            "1A11_CRC-Prim-HE-07_022.tif_Row_601_Col_15{}.tif": 6,
            "Kather_texture_2016_image_tiles_5000/Kather_texture_2016_image_tiles_5000/02_STROMA/"
            "10009_CRC-Prim-HE-02_003b.tif_Row_1_Col_30{}.tif": 5,
            "Kather_texture_2016_image_tiles_5000/Kather_texture_2016_image_tiles_5000/08_EMPTY/"
            "1002D_CRC-Prim-HE-05_004.tif_Row_1_Col_15{}.tif": 4,
            "Kather_texture_2016_larger_images_10/Kather_texture_2016_larger_images_10/"
            "CRC-Prim-HE-0{}_APPLICATION.tif": 4,
            "hmnist_28_28_RGB.csv": 1,
            "hmnist_8_8_L.csv": 1,
        },
        classes={"01_TUMOR": (6, 0), "02_STROMA": (5, 0), "08_EMPTY": (4, 0)},
        note="Large images without labels lie beside the tiles.",
    ),
    # torchvision and TFDS dtd: dtd/{images/CLASS/*.jpg,labels,imdb}.
    PublicTree(
        name="Describable Textures (dtd-r1.0.1.tar.gz)",
        files={
            "dtd/images/banded/banded_000{}.jpg": 6,
            "dtd/images/dotted/dotted_000{}.jpg": 5,
            "dtd/imdb/imdb.mat": 1,
            "dtd/labels/labels_joint_anno.txt": 1,
            "dtd/labels/test1.txt": 1,
            "dtd/labels/train1.txt": 1,
            "dtd/labels/val1.txt": 1,
        },
        classes={"banded": (6, 0), "dotted": (5, 0)},
        note="All classes lie in 'images', and lists say the splits.",
    ),
    # The authors' domain_adaptation_images.tar.gz.
    PublicTree(
        name="Office-31 (domain_adaptation_images.tar.gz)",
        files={
            "amazon/images/back_pack/frame_000{}.jpg": 6,
            "amazon/images/bike/frame_000{}.jpg": 5,
            "dslr/images/back_pack/frame_000{}.jpg": 4,
            "dslr/images/bike/frame_000{}.jpg": 4,
            "webcam/images/back_pack/frame_000{}.jpg": 5,
            "webcam/images/bike/frame_000{}.jpg": 4,
        },
        classes=None,
        note="The upper folders are domains and no classes: one is to be chosen, or all are to be merged.",
    ),
    # DomainBed's loader: PACS/DOMAIN/CLASS.
    PublicTree(
        name="PACS (as DomainBed unpacks it)",
        files={
            "PACS/art_painting/dog/pic_00{}.jpg": 6,
            "PACS/art_painting/horse/pic_00{}.jpg": 5,
            "PACS/cartoon/dog/pic_00{}.jpg": 5,
            "PACS/cartoon/horse/pic_00{}.jpg": 5,
            "PACS/photo/dog/056_000{}.jpg": 4,
            "PACS/photo/horse/105_000{}.jpg": 4,
            "PACS/sketch/dog/528{}.png": 4,
            "PACS/sketch/horse/952{}.png": 4,
        },
        classes=None,
        note="The upper folders are domains and no classes: one is to be chosen, or all are to be merged.",
    ),
    # TFDS domainnet: DOMAIN.zip, and lists DOMAIN_train.txt and DOMAIN_test.txt.
    PublicTree(
        name="DomainNet (clipart.zip, real.zip, sketch.zip)",
        files={
            "clipart/aircraft_carrier/clipart_001_00000{}.jpg": 6,
            "clipart/airplane/clipart_002_00000{}.jpg": 5,
            "clipart_test.txt": 1,
            "clipart_train.txt": 1,
            "real/aircraft_carrier/real_001_00000{}.jpg": 4,
            "real/airplane/real_002_00000{}.jpg": 4,
            "real_test.txt": 1,
            "real_train.txt": 1,
            "sketch/aircraft_carrier/sketch_001_00000{}.jpg": 4,
            "sketch/airplane/sketch_002_00000{}.jpg": 4,
            "sketch_test.txt": 1,
            "sketch_train.txt": 1,
        },
        classes=None,
        note="The upper folders are domains and no classes, and lists in each domain's name say its split.",
    ),
    # The challenge's train.tar, validation.tar and test.tar; its README describes image_list.txt.
    PublicTree(
        name="VisDA-2017 (classification track)",
        files={
            "train/aeroplane/src_1_02691156_{}.png": 6,
            "train/bicycle/src_1_02834778_{}.png": 5,
            "train/image_list.txt": 1,
            "validation/aeroplane/aeroplane_10561{}.jpg": 4,
            "validation/bicycle/bicycle_10562{}.jpg": 5,
            "validation/image_list.txt": 1,
            "test/trunk00/{}.jpg": 4,
            "test/trunk01/1{}.jpg": 4,
            "test/image_list.txt": 1,
        },
        classes={"aeroplane": (6, 4), "bicycle": (5, 5)},
        note="The folders of the test split are pieces of it and no classes.",
    ),
    # Kaggle; the lists are of Thung and Yang's TrashNet.
    PublicTree(
        name="Garbage classification (Kaggle asdasdasasdas/garbage-classification)",
        files={
            "Garbage classification/Garbage classification/cardboard/cardboard{}.jpg": 6,
            "Garbage classification/Garbage classification/glass/glass{}.jpg": 5,
            "Garbage classification/Garbage classification/trash/trash{}.jpg": 4,
            "one-indexed-files-notrash_test.txt": 1,
            "one-indexed-files-notrash_train.txt": 1,
            "one-indexed-files-notrash_val.txt": 1,
            "one-indexed-files.txt": 1,
            "zero-indexed-files.txt": 1,
        },
        classes={"cardboard": (6, 0), "glass": (5, 0), "trash": (4, 0)},
        note="Two folders of one name above the classes.",
    ),
    # Kaggle.
    PublicTree(
        name="HAM10000 (Kaggle kmader/skin-cancer-mnist-ham10000)",
        files={
            "HAM10000_images_part_1/ISIC_002430{}.jpg": 8,
            "HAM10000_images_part_2/ISIC_002930{}.jpg": 8,
            "HAM10000_metadata.csv": 1,
            "hmnist_28_28_RGB.csv": 1,
            "hmnist_8_8_L.csv": 1,
        },
        classes=None,
        note="The two folders are halves of the images: the labels are in a CSV file.",
    ),
    # Kaggle.
    PublicTree(
        name="Sign Language MNIST (Kaggle datamunge/sign-language-mnist)",
        files={
            "amer_sign2.png": 1,
            "amer_sign3.png": 1,
            "american_sign_language.PNG": 1,
            "sign_mnist_test.csv": 1,
            "sign_mnist_test/sign_mnist_test.csv": 1,
            "sign_mnist_train.csv": 1,
            "sign_mnist_train/sign_mnist_train.csv": 1,
        },
        classes=None,
        note="The images are rows of CSV files, and the three image files are illustrations.",
    ),
    # Kaggle.
    PublicTree(
        name="Cassava leaves (Kaggle competition cassava-leaf-disease-classification)",
        files={
            "train_images/100001515{}.jpg": 8,
            "test_images/2216849948.jpg": 1,
            "train_tfrecords/ld_train0{}-1338.tfrec": 2,
            "test_tfrecords/ld_test00-1.tfrec": 1,
            "label_num_to_disease_map.json": 1,
            "sample_submission.csv": 1,
            "train.csv": 1,
        },
        classes=None,
        note="The labels are in a CSV file.",
    ),
    # TFDS cassava: cassavaleafdata/{train,test,validation}/CLASS/*.jpg.
    PublicTree(
        name="Cassava leaves (TensorFlow, cassavaleafdata.zip)",
        files={
            "cassavaleafdata/train/cbb/train-cbb-{}.jpg": 6,
            "cassavaleafdata/train/healthy/train-healthy-{}.jpg": 5,
            "cassavaleafdata/validation/cbb/val-cbb-{}.jpg": 4,
            "cassavaleafdata/validation/healthy/val-healthy-{}.jpg": 4,
            "cassavaleafdata/test/cbb/test-cbb-{}.jpg": 5,
            "cassavaleafdata/test/healthy/test-healthy-{}.jpg": 4,
        },
        classes={"cbb": (6, 5), "healthy": (5, 4)},
        note="Three splits.",
    ),
    # Kaggle.
    PublicTree(
        name="Vegetables (Kaggle misrakahmed/vegetable-image-dataset)",
        files={
            "Vegetable Images/train/Bean/000{}.jpg": 6,
            "Vegetable Images/train/Tomato/000{}.jpg": 5,
            "Vegetable Images/test/Bean/000{}.jpg": 4,
            "Vegetable Images/test/Tomato/100{}.jpg": 5,
            "Vegetable Images/validation/Bean/002{}.jpg": 4,
            "Vegetable Images/validation/Tomato/120{}.jpg": 4,
        },
        classes={"Bean": (6, 4), "Tomato": (5, 5)},
        note="Three splits.",
    ),
    # Kaggle: the first three letters of a file's name are its folders.
    PublicTree(
        name="Google Landmarks (Kaggle competition landmark-recognition-2020)",
        files={
            "train/0/0/0/000005961{}.jpg": 6,
            "train/0/0/1/001005961{}.jpg": 5,
            "train/1/0/0/100005961{}.jpg": 4,
            "train/1/0/1/101005961{}.jpg": 4,
            "test/0/0/0/0000059a1{}.jpg": 4,
            "test/1/0/0/100005ca1{}.jpg": 4,
            "sample_submission.csv": 1,
            "train.csv": 1,
        },
        classes=None,
        note="The folders are the first letters of the file names: the labels are in a CSV file.",
    ),
    # Kaggle.
    PublicTree(
        name="CelebA (Kaggle jessicali9530/celeba-dataset)",
        files={
            "img_align_celeba/img_align_celeba/00000{}.jpg": 8,
            "list_attr_celeba.csv": 1,
            "list_bbox_celeba.csv": 1,
            "list_eval_partition.csv": 1,
            "list_landmarks_align_celeba.csv": 1,
        },
        classes=None,
        note="All images lie in one folder: CSV files have the attributes.",
    ),
    # torchvision VOCDetection and VOCSegmentation: VOCdevkit/VOC2012/{JPEGImages,Annotations,SegmentationClass,…}.
    PublicTree(
        name="Pascal VOC 2012 (VOCtrainval_11-May-2012.tar)",
        files={
            "VOCdevkit/VOC2012/Annotations/2007_00002{}.xml": 6,
            "VOCdevkit/VOC2012/ImageSets/Main/aeroplane_train.txt": 1,
            "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt": 1,
            "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt": 1,
            "VOCdevkit/VOC2012/JPEGImages/2007_00002{}.jpg": 6,
            "VOCdevkit/VOC2012/SegmentationClass/2007_00002{}.png": 4,
            "VOCdevkit/VOC2012/SegmentationObject/2007_00002{}.png": 4,
        },
        classes=None,
        note="The folders hold images and two kinds of masks of the same images.",
    ),
    # torchvision CocoDetection and the organizers' zips.
    PublicTree(
        name="COCO 2017 (train2017.zip, val2017.zip, test2017.zip and annotations_trainval2017.zip)",
        files={
            "train2017/00000000000{}.jpg": 8,
            "val2017/00000000013{}.jpg": 6,
            "test2017/00000000000{}.jpg": 6,
            "annotations/instances_train2017.json": 1,
            "annotations/instances_val2017.json": 1,
        },
        classes=None,
        note="Three splits without class folders: the labels are in JSON files.",
    ),
    # torchvision and TFDS cityscapes: leftImg8bit/SPLIT/CITY/*, gtFine/SPLIT/CITY/*.
    PublicTree(
        name="Cityscapes (leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip)",
        files={
            "leftImg8bit/train/aachen/aachen_00000{}_000019_leftImg8bit.png": 5,
            "leftImg8bit/train/bochum/bochum_00000{}_000019_leftImg8bit.png": 4,
            "leftImg8bit/val/frankfurt/frankfurt_00000{}_000294_leftImg8bit.png": 4,
            "leftImg8bit/test/berlin/berlin_00000{}_000019_leftImg8bit.png": 4,
            "gtFine/train/aachen/aachen_00000{}_000019_gtFine_color.png": 5,
            "gtFine/train/aachen/aachen_00000{}_000019_gtFine_labelIds.png": 5,
            "gtFine/train/aachen/aachen_00000{}_000019_gtFine_polygons.json": 5,
            "gtFine/train/bochum/bochum_00000{}_000019_gtFine_color.png": 4,
            "gtFine/train/bochum/bochum_00000{}_000019_gtFine_labelIds.png": 4,
            "gtFine/train/bochum/bochum_00000{}_000019_gtFine_polygons.json": 4,
            "gtFine/val/frankfurt/frankfurt_00000{}_000294_gtFine_labelIds.png": 4,
            "gtFine/test/berlin/berlin_00000{}_000019_gtFine_labelIds.png": 4,
            "README": 1,
            "license.txt": 1,
        },
        classes=None,
        note="Each split has other cities, which are no classes, and a second tree has the masks.",
    ),
    # Kaggle.
    PublicTree(
        name="Carvana (Kaggle competition carvana-image-masking-challenge)",
        files={
            "train/0cdf5b5d0ce1_0{}.jpg": 8,
            "train_masks/0cdf5b5d0ce1_0{}_mask.gif": 8,
            "test/0004d4463b50_0{}.jpg": 6,
            "metadata.csv": 1,
            "sample_submission.csv": 1,
            "train_masks.csv": 1,
        },
        classes=None,
        note="A folder of masks lies beside the two splits, which have no classes.",
    ),
    # Kaggle.
    PublicTree(
        name="State Farm drivers (Kaggle competition state-farm-distracted-driver-detection)",
        files={
            "imgs/train/c0/img_4473{}.jpg": 6,
            "imgs/train/c1/img_1002{}.jpg": 5,
            "imgs/train/c9/img_1928{}.jpg": 7,
            "imgs/test/img_{}.jpg": 6,
            "driver_imgs_list.csv": 1,
            "sample_submission.csv": 1,
        },
        classes={"c0": (6, 0), "c1": (5, 0), "c9": (7, 0)},
        note="The test images have no labels.",
    ),
    # Kaggle.
    PublicTree(
        name="Plant seedlings (Kaggle competition plant-seedlings-classification)",
        files={
            "train/Black-grass/0050f38b{}.png": 6,
            "train/Common Chickweed/01ae9d5e{}.png": 5,
            "train/Maize/00d3e2f1{}.png": 4,
            "test/0021e90e{}.png": 6,
            "sample_submission.csv": 1,
        },
        classes={"Black-grass": (6, 0), "Common Chickweed": (5, 0), "Maize": (4, 0)},
        note="The test images have no labels.",
    ),
    # Kaggle: the folder's name ends in a blank.
    PublicTree(
        name="Retinal OCT (Kaggle paultimothymooney/kermany2018)",
        files={
            "OCT2017 /train/CNV/CNV-1016042-{}.jpeg": 6,
            "OCT2017 /train/NORMAL/NORMAL-1001772-{}.jpeg": 5,
            "OCT2017 /train/.DS_Store": 1,
            "OCT2017 /test/CNV/CNV-103044-{}.jpeg": 4,
            "OCT2017 /test/NORMAL/NORMAL-101880-{}.jpeg": 5,
            "OCT2017 /test/.DS_Store": 1,
            "OCT2017 /val/CNV/CNV-6294785-{}.jpeg": 4,
            "OCT2017 /val/NORMAL/NORMAL-5156112-{}.jpeg": 4,
            "OCT2017 /val/.DS_Store": 1,
            "OCT2017 /.DS_Store": 1,
        },
        classes={"CNV": (6, 4), "NORMAL": (5, 5)},
        note="The folder's name ends in a blank, and a copy of it lies in a folder of nearly the same name.",
        copies={"oct2017/OCT2017 ": "OCT2017 "},
    ),
    # Kaggle.
    PublicTree(
        name="Breast histopathology (Kaggle paultimothymooney/breast-histopathology-images)",
        files={
            "10253/0/10253_idx5_x1001_y100{}_class0.png": 6,
            "10253/1/10253_idx5_x501_y35{}_class1.png": 4,
            "10254/0/10254_idx5_x1001_y110{}_class0.png": 5,
            "10254/1/10254_idx5_x1701_y160{}_class1.png": 5,
            "8863/0/8863_idx5_x1001_y80{}_class0.png": 4,
            "8863/1/8863_idx5_x1001_y85{}_class1.png": 4,
        },
        classes=None,
        note="The upper folders are patients, the classes 0 and 1 lie in each, and everything occurs twice.",
        copies={
            "IDC_regular_ps50_idx5/10253": "10253",
            "IDC_regular_ps50_idx5/10254": "10254",
            "IDC_regular_ps50_idx5/8863": "8863",
        },
    ),
    # The authors' archives train_val2017 (TFDS i_naturalist2017: train_val_images.tar.gz) and test2017.tar.gz.
    PublicTree(
        name="iNaturalist 2017 (train_val_images.tar.gz and test2017.tar.gz)",
        files={
            "train_val_images/Aves/Accipiter cooperii/002a3b9f{}.jpg": 6,
            "train_val_images/Aves/Zonotrichia leucophrys/013b2c7e{}.jpg": 5,
            "train_val_images/Plantae/Abelia grandiflora/024c1d6d{}.jpg": 4,
            "test2017/035d0e5c{}.jpg": 6,
            "train2017.json": 1,
            "val2017.json": 1,
        },
        classes=None,
        note="Species lie in folders of their kingdom or class: which of the two is meant is open.",
    ),
    # torchvision LFWPeople: lfw/NAME/NAME_0001.jpg.
    PublicTree(
        name="Labeled Faces in the Wild (lfw.tgz)",
        files={
            "lfw/Aaron_Peirsol/Aaron_Peirsol_000{}.jpg": 4,
            "lfw/Abdullah_Gul/Abdullah_Gul_000{}.jpg": 7,
            "lfw/Adrien_Brody/Adrien_Brody_000{}.jpg": 5,
        },
        classes={"Aaron_Peirsol": (4, 0), "Abdullah_Gul": (7, 0), "Adrien_Brody": (5, 0)},
        note="A folder for each person.",
    ),
    # torchvision Omniglot: images_background/ALPHABET/CHARACTER/*.png.
    PublicTree(
        name="Omniglot (images_background.zip and images_evaluation.zip)",
        files={
            "images_background/Balinese/character01/0108_0{}.png": 5,
            "images_background/Balinese/character02/0109_0{}.png": 5,
            "images_background/Greek/character01/0394_0{}.png": 4,
            "images_background/Greek/character02/0395_0{}.png": 4,
            "images_evaluation/Angelic/character01/0965_0{}.png": 4,
            "images_evaluation/Angelic/character02/0966_0{}.png": 4,
        },
        classes=None,
        note="Each alphabet has folders 'character01', …, which mean another letter in each.",
    ),
    # TFDS beans: train.zip, validation.zip and test.zip, each with a folder of its name.
    PublicTree(
        name="Beans (train.zip, validation.zip and test.zip of AI-Lab-Makerere/ibean)",
        files={
            "train/angular_leaf_spot/angular_leaf_spot_train.{}.jpg": 6,
            "train/healthy/healthy_train.{}.jpg": 5,
            "validation/angular_leaf_spot/angular_leaf_spot_val.{}.jpg": 4,
            "validation/healthy/healthy_val.{}.jpg": 4,
            "test/angular_leaf_spot/angular_leaf_spot_test.{}.jpg": 5,
            "test/healthy/healthy_test.{}.jpg": 4,
        },
        classes={"angular_leaf_spot": (6, 5), "healthy": (5, 4)},
        note="Three splits.",
    ),
    # TFDS visual_domain_decathlon and torchvision FGVCAircraft: fgvc-aircraft-2013b/data/images/*.jpg.
    PublicTree(
        name="FGVC Aircraft (fgvc-aircraft-2013b.tar.gz)",
        files={
            "fgvc-aircraft-2013b/README.md": 1,
            "fgvc-aircraft-2013b/data/images/003484{}.jpg": 8,
            "fgvc-aircraft-2013b/data/families.txt": 1,
            "fgvc-aircraft-2013b/data/images_test.txt": 1,
            "fgvc-aircraft-2013b/data/images_variant_train.txt": 1,
            "fgvc-aircraft-2013b/data/variants.txt": 1,
        },
        classes=None,
        note="All images lie in one folder: the labels are in text files.",
    ),
    # torchvision RenderedSST2 (train, valid and test, each with negative and positive).
    PublicTree(
        name="Rendered SST2 (rendered-sst2.tgz)",
        files={
            "rendered-sst2/train/negative/{}.png": 6,
            "rendered-sst2/train/positive/1{}.png": 5,
            "rendered-sst2/valid/negative/2{}.png": 4,
            "rendered-sst2/valid/positive/3{}.png": 4,
            "rendered-sst2/test/negative/4{}.png": 4,
            "rendered-sst2/test/positive/5{}.png": 5,
        },
        classes={"negative": (6, 4), "positive": (5, 5)},
        note="Three splits.",
    ),
    # Kaggle.
    PublicTree(
        name="140k real and fake faces (Kaggle xhlulu/140k-real-and-fake-faces)",
        files={
            "real_vs_fake/real-vs-fake/train/fake/00KDZTB0F{}.jpg": 6,
            "real_vs_fake/real-vs-fake/train/real/0000{}.jpg": 5,
            "real_vs_fake/real-vs-fake/valid/fake/01OAPDO4H{}.jpg": 4,
            "real_vs_fake/real-vs-fake/valid/real/0003{}.jpg": 4,
            "real_vs_fake/real-vs-fake/test/fake/00F8LKY6J{}.jpg": 4,
            "real_vs_fake/real-vs-fake/test/real/0006{}.jpg": 5,
            "test.csv": 1,
            "train.csv": 1,
            "valid.csv": 1,
        },
        classes={"fake": (6, 4), "real": (5, 5)},
        note="Two folders of nearly one name above the splits, and lists named like the splits.",
    ),
    # Kaggle.
    PublicTree(
        name="Rice varieties (Kaggle muratkokludataset/rice-image-dataset)",
        files={
            "Rice_Image_Dataset/Arborio/Arborio ({}).jpg": 6,
            "Rice_Image_Dataset/Basmati/basmati ({}).jpg": 5,
            "Rice_Image_Dataset/Jasmine/Jasmine ({}).jpg": 7,
            "Rice_Image_Dataset/Rice_Citation_Request.txt": 1,
        },
        classes={"Arborio": (6, 0), "Basmati": (5, 0), "Jasmine": (7, 0)},
        note="Class folders, with a text beside them.",
    ),
    # Kaggle.
    PublicTree(
        name="Concrete cracks (Kaggle arunrk7/surface-crack-detection)",
        files={
            "Negative/0000{}.jpg": 6,
            "Positive/0000{}.jpg": 7,
        },
        classes={"Negative": (6, 0), "Positive": (7, 0)},
        note="Class folders without a folder above.",
    ),
    # Kaggle.
    PublicTree(
        name="BreakHis (Kaggle ambarish/breakhis)",
        files={
            "BreaKHis_v1/BreaKHis_v1/histology_slides/breast/README.txt": 1,
            "BreaKHis_v1/BreaKHis_v1/histology_slides/breast/count_files.sh": 1,
            "BreaKHis_v1/BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X/"
            "SOB_B_A-14-22549AB-40-00{}.png": 4,
            "BreaKHis_v1/BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/100X/"
            "SOB_B_A-14-22549AB-100-00{}.png": 4,
            "BreaKHis_v1/BreaKHis_v1/histology_slides/breast/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523/40X/"
            "SOB_M_DC-14-2523-40-00{}.png": 5,
            "BreaKHis_v1/BreaKHis_v1/histology_slides/breast/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-2523/100X/"
            "SOB_M_DC-14-2523-100-00{}.png": 5,
            "Folds.csv": 1,
        },
        classes=None,
        note="Malignancy, tumour type, slide and magnification are each a level of folders: which is meant is open.",
    ),
]
