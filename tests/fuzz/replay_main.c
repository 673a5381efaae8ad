/* Replays a corpus through a fuzz target without libFuzzer.
 *
 * Goal: every byte parser runs over its whole corpus in every build of `./dev test`.
 * Method: call LLVMFuzzerTestOneInput once a file of the folders given. A crash, a failed CHECK or
 * a sanitizer report ends the program; so does a folder that holds no file, since then nothing
 * was tested. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static int replay_file(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        return 0;
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    /* Exactly as large as the input, so that AddressSanitizer sees one byte too many. */
    size_t byte_count = (size_t)info.st_size;
    uint8_t *bytes = byte_count == 0 ? NULL : malloc(byte_count);
    if (byte_count != 0 && (bytes == NULL || fread(bytes, 1, byte_count, file) != byte_count)) {
        perror(path);
        exit(1);
    }
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, byte_count);
    free(bytes);
    return 1;
}

static int replay_folder(const char *path)
{
    struct dirent **entries = NULL;
    int entry_count = scandir(path, &entries, NULL, alphasort);
    if (entry_count < 0) {
        perror(path);
        exit(1);
    }
    int file_count = 0;
    for (int i = 0; i < entry_count; i++) {
        char file[4096];
        int length = snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
        if (length < 0 || (size_t)length >= sizeof file) {
            fprintf(stderr, "%s: the name of an entry is too long\n", path);
            exit(1);
        }
        file_count += replay_file(file);
        free(entries[i]);
    }
    free(entries);
    return file_count;
}

int main(int argument_count, char **arguments)
{
    for (int i = 1; i < argument_count; i++) {
        int file_count = replay_folder(arguments[i]);
        if (file_count == 0) {
            fprintf(stderr, "%s: holds no input to replay\n", arguments[i]);
            return 1;
        }
        printf("%s: %d inputs\n", arguments[i], file_count);
    }
    return argument_count > 1 ? 0 : 1;
}
