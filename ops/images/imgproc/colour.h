/* Brings a picture of any colour model and profile to sRGB, which is what a picture without a profile is taken for.
 *
 * The profile is the one that the picture carries. Without one, a picture can still say what its numbers mean: a
 * camera's EXIF names Adobe RGB (interoperability R03), a PNG's cHRM and gAMA give primaries and gamma, CIE Lab needs
 * no profile. A CMYK picture without a profile has no defined colours; ImageMagick's plain formula converts it.
 * A PNG's cICP chunk is not read: libpng of Debian 12 does not know it.
 */
#include <lcms2.h>
#include <math.h>
#include <magick/MagickCore.h>

static StringInfo *stored(cmsHPROFILE profile)
{
    cmsUInt32Number length = 0;
    StringInfo *bytes = NULL;
    if (profile && cmsSaveProfileToMem(profile, NULL, &length)) {
        bytes = AcquireStringInfo(length);
        cmsSaveProfileToMem(profile, GetStringInfoDatum(bytes), &length);
    }
    if (profile)
        cmsCloseProfile(profile);
    return bytes;
}

static cmsHPROFILE rgb_profile(cmsCIExyY white, cmsCIExyYTRIPLE primaries, double gamma)
{
    cmsToneCurve *curve = cmsBuildGamma(NULL, gamma);
    cmsHPROFILE profile = cmsCreateRGBProfile(&white, &primaries, (cmsToneCurve *[]){curve, curve, curve});
    cmsFreeToneCurve(curve);
    return profile;
}

/* The profile of a picture that carries none but says in another way what its numbers mean; NULL for all others. */
static cmsHPROFILE implied_profile(const Image *image)
{
    if (image->colorspace == LabColorspace)
        return cmsCreateLab4Profile(NULL);
    if (image->colorspace == CMYKColorspace)
        return NULL;
    /* ImageMagick 6 files this under the thumbnail's. */
    const char *interoperability = GetImageProperty(image, "exif:thumbnail:InteroperabilityIndex");
    if (!interoperability)
        interoperability = GetImageProperty(image, "exif:InteroperabilityIndex");
    if (interoperability && strncmp(interoperability, "R03", 3) == 0)
        return rgb_profile((cmsCIExyY){0.3127, 0.3290, 1},
                           (cmsCIExyYTRIPLE){{0.64, 0.33, 1}, {0.21, 0.71, 1}, {0.15, 0.06, 1}}, 563 / 256.0);
    /* A gamma alone is what old programs write without thought; together with primaries it is meant. */
    const ChromaticityInfo *known = &image->chromaticity;
    if (GetImageProperty(image, "png:cHRM") && GetImageProperty(image, "png:gAMA") &&
        !GetImageProperty(image, "png:sRGB") && image->gamma > 0.1 && image->gamma < 10 && known->white_point.y > 0 &&
        known->red_primary.y > 0 && known->green_primary.y > 0)
        return rgb_profile((cmsCIExyY){known->white_point.x, known->white_point.y, 1},
                           (cmsCIExyYTRIPLE){{known->red_primary.x, known->red_primary.y, 1},
                                             {known->green_primary.x, known->green_primary.y, 1},
                                             {known->blue_primary.x, known->blue_primary.y, 1}},
                           1 / image->gamma);
    return NULL;
}

/* True if a profile is sRGB's own, or nearly. Most pictures carry it, and need no conversion. */
static int is_srgb(cmsHPROFILE profile, cmsHPROFILE srgb)
{
    static const cmsTagSignature colorants[] = {cmsSigRedColorantTag, cmsSigGreenColorantTag, cmsSigBlueColorantTag};
    static const cmsTagSignature curves[] = {cmsSigRedTRCTag, cmsSigGreenTRCTag, cmsSigBlueTRCTag};
    if (cmsGetColorSpace(profile) != cmsSigRgbData || !cmsIsMatrixShaper(profile))
        return 0;
    for (int i = 0; i < 3; i++) {
        const cmsCIEXYZ *one = cmsReadTag(profile, colorants[i]), *other = cmsReadTag(srgb, colorants[i]);
        const cmsToneCurve *curve = cmsReadTag(profile, curves[i]), *wanted = cmsReadTag(srgb, curves[i]);
        if (!one || !other || !curve || !wanted || fabs(one->X - other->X) > 0.002 || fabs(one->Y - other->Y) > 0.002 ||
            fabs(one->Z - other->Z) > 0.002)
            return 0;
        for (float at = 0; at <= 1; at += 0.0625f)
            if (fabs((double)cmsEvalToneCurveFloat(curve, at) - (double)cmsEvalToneCurveFloat(wanted, at)) > 0.002)
                return 0;
    }
    return 1;
}

/* Return why a profile cannot be applied to a picture, for a message; NULL if it can. */
static const char *unusable(cmsHPROFILE profile, const Image *image)
{
    if (!profile)
        return "is damaged";
    switch (cmsGetColorSpace(profile)) {
    case cmsSigRgbData:
        return image->colorspace == CMYKColorspace || image->colorspace == LabColorspace ? "is for RGB" : NULL;
    case cmsSigGrayData:
        return image->colorspace == GRAYColorspace ? NULL : "is for grey pictures";
    case cmsSigCmykData:
        return image->colorspace == CMYKColorspace ? NULL : "is for CMYK";
    case cmsSigLabData:
        return image->colorspace == LabColorspace ? NULL : "is for CIE Lab";
    default:
        return "is for another colour model";
    }
}

/* Converts all pixels, row by row, in place. Gives 0 where that can't be done. ImageMagick's own conversion computes
 * each pixel in floating point, which takes far longer. */
static int convert_pixels(Image *image, cmsHPROFILE profile, cmsHPROFILE srgb, ExceptionInfo *exception)
{
    int cmyk = image->colorspace == CMYKColorspace, lab = image->colorspace == LabColorspace;
    int grey = cmsGetColorSpace(profile) == cmsSigGrayData, deep = lab || image->depth > 8;
    cmsUInt32Number input = lab    ? TYPE_Lab_16
                            : cmyk ? (deep ? TYPE_CMYK_16 : TYPE_CMYK_8)
                            : grey ? (deep ? TYPE_GRAY_16 : TYPE_GRAY_8)
                                   : (deep ? TYPE_RGB_16 : TYPE_RGB_8);
    cmsHTRANSFORM transform = cmsCreateTransform(profile, input, srgb, deep ? TYPE_RGB_16 : TYPE_RGB_8,
                                                 INTENT_RELATIVE_COLORIMETRIC, cmsFLAGS_BLACKPOINTCOMPENSATION);
    unsigned short *before = calloc(image->columns, 4 * sizeof *before);
    unsigned short *after = calloc(image->columns, 3 * sizeof *after);
    const char *channels = cmyk ? "CMYK" : grey ? "R" : "RGB";
    StorageType storage = deep ? ShortPixel : CharPixel;
    /* Numbers of grey are numbers of RGB, three times the same. */
    int done = transform && before && after && SetImageStorageClass(image, DirectClass) &&
               (cmyk || lab || SetImageColorspace(image, sRGBColorspace));
    for (ssize_t y = 0; done && y < (ssize_t)image->rows; y++) {
        done = ExportImagePixels(image, 0, y, image->columns, 1, channels, storage, before, exception);
        cmsDoTransform(transform, before, after, (cmsUInt32Number)image->columns);
        done = done && ImportImagePixels(image, 0, y, image->columns, 1, "RGB", storage, after);
    }
    if (transform)
        cmsDeleteTransform(transform);
    free(before);
    free(after);
    return done && SetImageColorspace(image, sRGBColorspace);
}

/* Gives a picture that carries no profile the one that it implies. */
static void name_profile(Image *image)
{
    StringInfo *implied = GetImageProfile(image, "icc") ? NULL : stored(implied_profile(image));
    if (implied)
        SetImageProfile(image, "icc", implied);
}

/* Converts a picture to sRGB. A profile that can't be applied is ignored with a line on stderr. */
static void make_srgb(Image *image, ExceptionInfo *exception)
{
    const StringInfo *carried = GetImageProfile(image, "icc");
    const char *trouble = NULL;
    if (carried) {
        cmsHPROFILE srgb = cmsCreate_sRGBProfile();
        cmsHPROFILE profile =
            cmsOpenProfileFromMem(GetStringInfoDatum(carried), (cmsUInt32Number)GetStringInfoLength(carried));
        trouble = unusable(profile, image);
        if (!trouble && !is_srgb(profile, srgb) && !convert_pixels(image, profile, srgb, exception))
            trouble = "can't be applied";
    }
    if (trouble)
        say("the picture's colour profile %s, and is ignored", trouble);
    TransformImageColorspace(image, sRGBColorspace);
}
